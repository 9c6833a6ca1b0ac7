"""Listens to the nets of a solver while Caffe trains, and gathers what each iteration produced."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from lglstm.common.pycaffe import CaffeNet, Solver
from lglstm.training.log import PLAIN, TEST, TOTAL, test_name

# A test output with more numbers than this (a score map, say) is a result, not a score.
MAX_SCORES = 1


class Probe:
    """Hooks on the train net and the test nets of a pycaffe solver.

    Nothing is computed that Caffe would not compute: losses are read where it has just written
    them, after each forward pass. `iter_size` passes make one iteration, whose losses are their
    means. Hooks may raise; the exception then leaves the solver with its weights as they are.
    """

    def __init__(self, solver: Solver, iter_size: int, test_iter: list[int]):
        self.net = solver.net
        self.iter_size = iter_size
        self.on_bad_loss: Callable[[], None] = lambda: None
        self.on_test: Callable[[int, int], None] = lambda batch, batches: None
        self.on_test_layer: Callable[[], None] = lambda: None
        self.losses = _losses(self.net)
        self.tests = [
            _TestNet(self, net, index, test_iter[index])
            for index, net in enumerate(solver.test_nets)
        ]
        self._watch_training()
        self.start_iteration()

    @property
    def columns(self) -> list[str]:
        """The columns of the CSV, in order."""
        tests = [TEST + name for test in self.tests for name in test.names]
        iteration, lr, *times = PLAIN
        return list(dict.fromkeys([iteration, lr, TOTAL, *self.losses, *times, *tests]))

    def start_iteration(self) -> None:
        self._sums = dict.fromkeys([TOTAL, *self.losses], 0.0)
        self.data_seconds = 0.0

    def iteration_losses(self) -> dict[str, float]:
        return {name: value / self.iter_size for name, value in self._sums.items()}

    def take_tests(self) -> dict[str, float]:
        """The results of the tests since the last call; {} when there was none."""
        results: dict[str, float] = {}
        for test in self.tests:
            results.update(test.results)
            test.results = {}
        return results

    def _watch_training(self) -> None:
        sources = set(source_layers(self.net))
        last = len(self.net.layers) - 1
        began = 0.0

        def before(layer: int) -> None:
            nonlocal began
            if layer in sources:
                began = time.perf_counter()

        def after(layer: int) -> None:
            if layer in sources:
                self.data_seconds += time.perf_counter() - began
            if layer == last:
                self._add_losses()

        self.net.before_forward(before)
        self.net.after_forward(after)

    def _add_losses(self) -> None:
        values = {name: float(self.net.blobs[name].data.sum()) for name in self.losses}
        total = sum(weight * values[name] for name, weight in self.losses.items())
        for name, value in {**values, TOTAL: total}.items():
            self._sums[name] += value
        if not math.isfinite(total):
            self.on_bad_loss()


class _TestNet:
    """Adds up the scores of one test net over the batches of a test, as Caffe does for its log."""

    def __init__(self, probe: Probe, net: CaffeNet, index: int, batches: int):
        self.net, self.batches, self.probe = net, batches, probe
        self.losses = _losses(net)
        self.outputs = {
            name: test_name(index, name)
            for name in net.outputs
            if net.blobs[name].count <= MAX_SCORES
        }
        self.total = test_name(index, TOTAL)
        self.names = ([self.total] if self.losses else []) + list(self.outputs.values())
        self.results: dict[str, float] = {}
        self.reset()
        last = len(net.layers) - 1
        net.before_forward(lambda layer: probe.on_test_layer())
        net.after_forward(lambda layer: self._add_batch() if layer == last else None)

    def reset(self) -> None:
        self.done = 0
        self.sums = dict.fromkeys(self.names, 0.0)

    def _add_batch(self) -> None:
        for blob, name in self.outputs.items():
            self.sums[name] += float(self.net.blobs[blob].data.sum())
        for blob, weight in self.losses.items():
            self.sums[self.total] += weight * float(self.net.blobs[blob].data.sum())
        self.done += 1
        self.probe.on_test(self.done, self.batches)
        if self.done == self.batches:
            self.results = {TEST + k: value / self.batches for k, value in self.sums.items()}
            self.reset()


def _losses(net: CaffeNet) -> dict[str, float]:
    """The blobs that make up the total loss of a net, and their weights."""
    return {name: weight for name, weight in net.blob_loss_weights.items() if weight}


def source_layers(net: CaffeNet) -> list[int]:
    """The indices of the layers that bring in data: those without bottoms."""
    return [k for k, name in enumerate(net._layer_names) if not net.bottom_names[name]]
