"""A Python layer that notes every batch it sees in a file: `param_str` is the file's name."""

from __future__ import annotations

import caffe
from seg_help import digest


class Recorder(caffe.Layer):
    def setup(self, bottom, top) -> None:
        """Nothing to prepare."""

    def reshape(self, bottom, top) -> None:
        """No tops."""

    def forward(self, bottom, top) -> None:
        with open(self.param_str, "a") as notes:
            print(digest(bottom[0].data, bottom[1].data), file=notes)

    def backward(self, top, propagate_down, bottom) -> None:
        """No gradient."""
