"""Programs behind `lglstm bench`: how fast the layers, the nets and the data layer are, and why.

    timing.py           rounds in which all take turns; medians, quartiles, ratios
    worker.py           an object in a process of its own, asleep until it is called
    memory.py           how much memory a process took
    machine.py          what the machine can do at best: matrix products, copying
    blas_clock.c/py     how long the matrix products take inside Caffe's layers
    counts.py           operations and bytes of the layers
    breakdown.py        where the time of the C++ layers goes
    report.py           tables, JSON and pictures of all benchmarks

    implementations.py  what is timed; only what computes the same numbers as the baseline

    stack.py            the LG-LSTM stack, in caffe_stack.py and torch_stack.py
    net.py              a training iteration, a single image, in caffe_net.py and torch_net.py
    data.py             images per second of SegData (caffe_data.py) against what the net needs
    scale.py            cost of the stack against map size, d, layers and batch
    *_report.py         their tables and pictures

Implementations run in workers and import Caffe or PyTorch; all other files import neither.
"""
