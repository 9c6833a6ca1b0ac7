"""Caffe's own files without Caffe: prototxt and caffemodel to a plain net description and back."""

from lglstm.caffe_files.caffemodel import read_blobs, read_caffemodel, write_caffemodel
from lglstm.caffe_files.net import Layer, Net, random_weights, read_net, weights_for

__all__ = [
    "Layer",
    "Net",
    "random_weights",
    "read_blobs",
    "read_caffemodel",
    "read_net",
    "weights_for",
    "write_caffemodel",
]
