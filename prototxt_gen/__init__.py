"""The nets and solvers of the paper, written as prototxt: options → NetSpec → text."""
