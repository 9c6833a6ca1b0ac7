"""SegData by itself: the implementation in `lglstm bench data`."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import caffe
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from benchmarks.machine import caffe_version
from benchmarks.memory import PeakMemory
from lglstm.layers import seg_options

TIMED = 4
"""Batches of one run for each that was decoded ahead."""


class CaffeData:
    """The data layer of a training net, with a number of decoding processes."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def build(self, net_file: Path, list_path: Path | None) -> None:
        """Take the data layer of `net_file`, with another list if one is given."""
        self.memory = PeakMemory()
        source = text_format.Parse(net_file.read_text(), caffe_pb2.NetParameter())
        options = seg_options.of_net(source, net_file)
        (layer,) = seg_options.seg_data_layers(source)
        options = replace(options, workers=self.workers, rank=0, world_size=1)
        if list_path is not None:
            options = replace(options, list=str(list_path), root=None)
        layer.python_param.param_str = options.to_json()
        with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
            file.write(text_format.MessageToString(caffe_pb2.NetParameter(layer=[layer])))
            file.flush()
            self.net = caffe.Net(file.name, caffe.TRAIN)
        self.batch = options.batch_size
        self.ahead = options.prefetch + 1

    def warm_up(self) -> None:
        self._batches(self.ahead)
        self.memory.forget()

    def run(self) -> dict[str, float]:
        """Seconds for each image, once the batches that were decoded ahead are used up."""
        self._batches(self.ahead)
        count = TIMED * self.ahead
        started = time.perf_counter()
        self._batches(count)
        return {"forward": (time.perf_counter() - started) / (count * self.batch)}

    def peak_mib(self) -> float:
        """The most memory held in this process; decoding processes have their own."""
        return self.memory.mib()

    def version(self) -> str:
        return caffe_version()

    def _batches(self, count: int) -> None:
        for _ in range(count):
            self.net._forward(0, 0)
