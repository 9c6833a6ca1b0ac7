"""LG-LSTM networks in PyTorch.

    from lg_lstm_torch import load
    net = load("horse.safetensors")            # made by `lglstm convert … --to pytorch`
    scores = net(photos)                       # (B, 3, H, W) -> (B, classes, H, W)

lg_lstm.py   LGLSTMTransition and LGLSTM, usable in any network
layers.py    Caffe's stock layers, with Caffe's rules for sizes, borders and losses
net.py       Net: a network built from a description of its layers; Losses: of a train net
files.py     load, save, load_caffemodel, and checkpoints of a training
solver.py    Caffe's SGD and Adam, and its learning rates

Only PyTorch is needed, and `safetensors` for files of that kind; `load_caffemodel` alone needs the
package `lglstm`, which reads Caffe's files and has these modules, too, as `lglstm.convert.torch`.
"""

from .files import load, load_caffemodel, load_checkpoint, save, save_checkpoint
from .lg_lstm import LGLSTM, LGLSTMTransition
from .net import Losses, Net

__all__ = [
    "LGLSTM",
    "LGLSTMTransition",
    "Losses",
    "Net",
    "load",
    "load_caffemodel",
    "load_checkpoint",
    "save",
    "save_checkpoint",
]
