"""Programs behind `lglstm bench`: how fast the layers, the nets and the data layer are, and why.

    timing.py       rounds in which all competitors take turns; medians, quartiles, ratios
    worker.py       a competitor in a process of its own, asleep until it is asked
    memory.py       how much memory a process took
    machine.py      what the machine can do at best: matrix products, copying
    blas_clock.c/py how long the matrix products take inside Caffe's layers
    counts.py       operations and bytes of the layers
    breakdown.py    where the time of the C++ layers goes
    report.py       tables, JSON and pictures of all benchmarks

    rivals.py       who competes; nobody is timed who computes other numbers

    stack.py        the LG-LSTM stack; rivals caffe_stack.py, torch_stack.py
    net.py          a whole training iteration, a single image; rivals caffe_net.py, torch_net.py
    data.py         images per second of SegData against what the net needs
    scale.py        cost of the stack against map size, d, layers and batch

Rivals run in workers and import Caffe or PyTorch; all other files import neither.
"""
