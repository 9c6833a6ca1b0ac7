"""SegData: photos and their label maps from a list, paired, augmented and decoded ahead.

layer {
  name: "train_data"  type: "Python"  top: "data"  top: "label"
  param { lr_mult: 0  decay_mult: 0 }
  python_param {
    module: "lglstm.layers.seg_data"  layer: "SegData"
    param_str: '{"list": "data/horse/train.txt", "batch_size": 2, "input_size": [321, 321],
                 "label_stride": 8, "num_classes": 5, "train": true, "seed": 1, "mirror": true}'
  }
}

Tops: data (B, 3, H, W), BGR minus the mean; label (B, 1, h, w), ids at the net's stride.
Every key of `param_str`: docs/data_layer.md.

With `train: true` the layer owns one blob of one number, the batches served so far; the number is
also the next batch's. Caffe saves it in its snapshots and reads it back from them like any weight,
so a training that is continued, by whatever program, continues with exactly the next batch. The
`param` above keeps the solver from changing it. Without `train`, the list is read in order, over
and over.
"""

from __future__ import annotations

import atexit
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import caffe
import numpy as np

from lglstm.common.errors import InputError
from lglstm.layers import seg_options
from lglstm.layers.python_layer import Blobs, PythonLayer, reports_errors
from lglstm.layers.seg_list import read_list
from lglstm.layers.seg_prefetch import Inline, Prefetcher, open_source

LAST_BATCH = 2**24
"""float32 counts exactly up to here."""

REPORT_EVERY = 100
"""Batches between two looks at the waiting time."""

WORTH_SAYING = 0.05
"""The part of the time spent waiting from which on it is reported."""


@reports_errors
class SegData(PythonLayer):
    """See the module. No bottoms; the tops are data and label.

    Attributes for whoever trains: `batches`, those served by this object; `waited_s`, the seconds
    that `forward` waited for them, without the first one's start-up.
    """

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.options = self._with_rank(seg_options.parse(self.param_str))
        if len(bottom) or len(top) != 2:
            raise InputError(
                f"SegData layer of {self.options.list}: has {len(bottom)} bottoms and {len(top)} "
                "tops; it must have no bottom and the tops data and label"
            )
        self.examples = read_list(self.options.list, self.options.root)
        self.batches, self.waited_s = 0, 0.0
        self._source: Inline | Prefetcher | None = None
        self._waiting = Waiting(self.options.list)
        if self.options.train and not len(self.blobs):
            self.blobs.add_blob(1)
            self.blobs[0].data[...] = 0

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(*self.options.data_shape)
        top[1].reshape(*self.options.label_shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        started = time.perf_counter()
        top[0].data[...], top[1].data[...] = self._open_source().batch(self._next())
        self._advance()
        waited = time.perf_counter() - started
        if self.batches > 1:
            self.waited_s += waited
            self._waiting.add(waited)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Photos have no gradient."""

    def close(self) -> None:
        """End the decoding processes, which `forward` would start again.

        They end with the program in any case. But Caffe never frees a Python layer, not even with
        its net, so a program that loads many nets calls `net.layers[i].close()`.
        """
        if self._source is not None:
            self._source.close()
            atexit.unregister(self._source.close)
            self._source = None

    def _with_rank(self, options: seg_options.SegDataOptions) -> seg_options.SegDataOptions:
        """Take this process's share of the training list from Caffe unless it is stated.

        Only the first process tests, so a test list is never divided.
        """
        if options.rank is not None or not options.train:
            return options
        return replace(options, rank=caffe.solver_rank(), world_size=caffe.solver_count())

    def _open_source(self) -> Inline | Prefetcher:
        """Start decoding at the first batch: loading a net to look at it starts no process."""
        if self._source is None:
            self._source = open_source(self.options, self.examples)
            atexit.register(self._source.close)
        return self._source

    def _next(self) -> int:
        """The number of the next batch: of the blob, which Caffe may have restored."""
        if not self.options.train:
            return self.batches
        position = float(self.blobs[0].data[0])
        if not (0 <= position < LAST_BATCH and position.is_integer()):
            raise InputError(
                f"SegData layer of {self.options.list}: its count of batches is {position}, not a "
                f"whole number below {LAST_BATCH:,}; give the layer "
                "`param { lr_mult: 0 decay_mult: 0 }`, so that the solver leaves the count alone"
            )
        return int(position)

    def _advance(self) -> None:
        self.batches += 1
        if self.options.train:
            self.blobs[0].data[...] += np.float32(1)


class Waiting:
    """Says now and then how long the net waited for its data, if that was long."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._start()

    def add(self, seconds: float) -> None:
        """Count one batch; report and start again after every REPORT_EVERY."""
        self._batches += 1
        self._waited += seconds
        if self._batches < REPORT_EVERY:
            return
        elapsed = time.perf_counter() - self._started
        if self._waited > WORTH_SAYING * elapsed:
            print(
                f"SegData layer of {self._name}: the net waited {self._waited:.1f} s of the last "
                f"{elapsed:.1f} s for data ({self._waited / elapsed:.0%}); more workers may help",
                file=sys.stderr,
                flush=True,
            )
        self._start()

    def _start(self) -> None:
        self._started = time.perf_counter()
        self._waited, self._batches = 0.0, 0
