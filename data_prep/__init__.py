"""Data sets: readers that turn downloaded files into images, label maps and lists."""
