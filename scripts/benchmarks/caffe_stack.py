"""The stack in Caffe, with the C++ or the Python layers, for `lglstm bench stack`."""

# ruff: noqa: C408 (dict(…) reads like the keyword arguments of NetSpec)
from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import caffe
import numpy as np
from caffe import layers as L

from benchmarks.blas_clock import Clock, Product
from benchmarks.counts import StackSize
from benchmarks.machine import caffe_version
from benchmarks.memory import PeakMemory
from lglstm.common.rules import whole
from lglstm.prototxt_gen.backbones import Features
from lglstm.prototxt_gen.lg_lstm import classifier, lg_lstm, transition
from lglstm.prototxt_gen.options import ModelOptions, option

LSTM_LAYERS = ("transition", "lg_lstm")


class CaffeStack:
    """engine: "caffe" for the C++ layers, "python" for the Python layers."""

    def __init__(self, engine: str) -> None:
        self.engine, self.clock = engine, Clock.here()

    def build(self, size: StackSize) -> None:
        """Make the net and fill everything with random values."""
        self.net: Any = None  # the net before is freed first
        self.memory = PeakMemory()
        self.size = size
        with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
            file.write(str(_net(size, self.engine)))
            file.flush()
            self.net = caffe.Net(file.name, caffe.TRAIN)
        self.names = list(self.net._layer_names)
        rng = np.random.default_rng(0)
        for blob in (self.net.blobs["x"], *self._weights().values()):
            blob.data[...] = rng.uniform(-0.1, 0.1, blob.data.shape)
        for name in self._scores():
            blob = self.net.blobs[name]
            blob.diff[...] = rng.uniform(-0.1, 0.1, blob.data.shape)

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Take features, weights and gradients of the scores by name, as `results` calls them."""
        self.net.blobs["x"].data[...] = arrays["x"]
        for name, blob in self._weights().items():
            blob.data[...] = arrays[name].reshape(blob.data.shape)
        for name in self._scores():
            self.net.blobs[name].diff[...] = arrays[f"{name}_diff"]

    def run(self) -> dict[str, float]:
        """Seconds of the passes; and of the LSTM layers, and of the matrix products in these."""
        net, last = self.net, len(self.names) - 1
        forward = [self._time(partial(net._forward, i, i)) for i in range(last + 1)]
        cleared = self._time(net.clear_param_diffs)
        backward = [self._time(partial(net._backward, i, i)) for i in range(last, -1, -1)]
        measured = {"forward": 0.0, "backward": cleared[0]}
        for way, times, names in (
            ("forward", forward, self.names),
            ("backward", backward, self.names[::-1]),
        ):
            measured[way] += sum(seconds for seconds, _ in times)
            lstm = [t for t, name in zip(times, names, strict=True) if _is_lstm(name)]
            measured[f"lstm_{way}"] = sum(seconds for seconds, _ in lstm)
            measured[f"products_{way}"] = sum(products for _, products in lstm)
        return measured

    def results(self) -> dict[str, np.ndarray]:
        """Scores, and the gradients of features and weights, of the last run."""
        scores = {name: self.net.blobs[name].data.copy() for name in self._scores()}
        blobs = {"x": self.net.blobs["x"]} | self._weights()
        return scores | {f"{name}_diff": blob.diff.copy() for name, blob in blobs.items()}

    def products(self) -> list[Product]:
        """The matrix products of the LSTM layers in one run, forward and backward."""
        if self.clock is None:
            return []
        self.clock.record(True)
        lstm = [i for i, name in enumerate(self.names) if _is_lstm(name)]
        for i in lstm:
            self.net._forward(i, i)
        for i in reversed(lstm):
            self.net._backward(i, i)
        self.clock.record(False)
        return self.clock.products()

    def warm_up(self) -> None:
        """Run once; memory that only this run takes does not count."""
        self.run()
        self.memory.forget()

    def peak_mib(self) -> float:
        """The most memory held since warming up, beyond that before `build`."""
        return self.memory.mib()

    def version(self) -> str:
        return caffe_version()

    def _time(self, work: Callable[[], object]) -> tuple[float, float]:
        """Seconds that something takes, and those of the matrix products in it."""
        before = self.clock.seconds() if self.clock else 0.0
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
        return seconds, self.clock.seconds() - before if self.clock else 0.0

    def _weights(self) -> dict[str, caffe._caffe.Blob]:
        params = self.net.params
        weights = {"transition": params["transition"][0]}
        weights |= {"spatial": params["lg_lstm1"][0], "depth": params["lg_lstm1"][1]}
        for i in range(1, self.size.layers + 1):
            local, global_ = params[f"score{i}_local"], params[f"score{i}_global"]
            weights |= {f"score{i}_local": local[0], f"score{i}_bias": local[1]}
            weights |= {f"score{i}_global": global_[0]}
        return weights

    def _scores(self) -> list[str]:
        return [f"score{i}" for i in range(1, self.size.layers + 1)]


class CaffeStacks:
    """Several stacks of C++ layers in one process, by number."""

    def __init__(self) -> None:
        self.stacks: dict[int, CaffeStack] = {}

    def build(self, number: int, size: StackSize) -> None:
        self.stacks[number] = CaffeStack("caffe")
        self.stacks[number].build(size)
        self.stacks[number].run()

    def run(self, number: int) -> dict[str, float]:
        return self.stacks[number].run()

    def version(self) -> str:
        return caffe_version()


@dataclass(frozen=True, kw_only=True)
class _Options(ModelOptions):
    """Options of a stack by itself: one position for each input, any number of classes."""

    classes: int = option(5, "classes of each classifier", whole(1))
    stride = 1

    @property
    def num_classes(self) -> int:
        return self.classes


def _is_lstm(layer: str) -> bool:
    """Whether a layer is one of ours; Caffe's copies of shared tops are not."""
    return layer.startswith(LSTM_LAYERS) and not layer.endswith("_split")


def _net(size: StackSize, engine: str) -> caffe.proto.caffe_pb2.NetParameter:
    """The stack of the models, without what comes before and after it."""
    options = _Options(
        engine=engine,
        lg_lstm_layers=size.layers,
        hidden=size.hidden,
        neighbors=size.neighbors,
        global_grid=size.grid,
        input_size=(size.height, size.width),
        classes=size.classes,
    )
    n = caffe.NetSpec()
    n.x = L.Input(shape=dict(dim=[size.batch, size.channels, size.height, size.width]))
    cells = transition(n, Features(n.x, size.channels), options)
    for i in range(1, size.layers + 1):
        cells = lg_lstm(n, i, cells, options)
        classifier(n, i, cells.local, cells.global_, f"score{i}", options)
    n.silence = L.Silence(cells.memory, ntop=0)
    net = n.to_proto()
    net.force_backward = True  # there are no losses: gradients of the scores are given
    return net
