"""`lglstm bench stack`: transition, LG-LSTM layers and classifiers, forward and backward."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import blas_clock, counts, machine
from benchmarks.blas_clock import Product
from benchmarks.breakdown import breakdown
from benchmarks.counts import StackSize
from benchmarks.implementations import (
    TORCH_ENVIRONMENT,
    Comparison,
    Implementation,
    check_equal,
    select,
)
from benchmarks.timing import Measured, milliseconds, of, ratio, total
from benchmarks.worker import Worker
from lglstm.common.errors import UsageError


def _caffe(key: str, label: str, engine: str, slow: bool = False) -> Implementation:
    return Implementation(key, label, "benchmarks.caffe_stack:CaffeStack", (engine,), slow=slow)


def _torch(key: str, label: str) -> Implementation:
    target = "benchmarks.torch_stack:TorchStack"
    return Implementation(key, label, target, (key, "threads"), TORCH_ENVIRONMENT, package="torch")


IMPLEMENTATIONS = (
    _caffe("cpp", "C++ layers", "caffe"),
    _caffe("python", "Python layers", "python", slow=True),
    _torch("literal", "PyTorch, literal"),
    _torch("factored", "PyTorch, factored"),
    _torch("compiled", "PyTorch, compiled"),
)

SIZES = {
    "41x41": StackSize(height=41, width=41, channels=1024, classes=5),
    "150x100": StackSize(height=150, width=100, channels=256, classes=18),
}
"""The maps of the models: LargeFOV on Horse-Cow, Co-CNN on ATR."""

QUICK = {"9x7": StackSize(height=9, width=7, channels=16, hidden=8, classes=3)}
QUICK_LIMITS = (256, 2**20)
TINY = StackSize(
    batch=2, height=5, width=4, channels=7, hidden=3, neighbors=8, grid=2, classes=3, layers=5
)
"""On which all implementations must compute the same numbers."""


def run(
    sizes: Iterable[tuple[str, StackSize]],
    implementations: Iterable[Implementation] = IMPLEMENTATIONS,
    *,
    repeats: int,
    threads: int,
    limits: tuple[int, int] = (machine.SQUARE, machine.COPIED),
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure every implementation at every size; the first one is the baseline of the others.

    limits: how large a product and a copy tell what the machine can do.
    Returns the object that `--json` prints. Raises InputError if an implementation computes other
    numbers than the baseline.
    """
    sizes, implementations = list(sizes), list(implementations)
    runs = len(implementations) * (1 + len(sizes) * (1 + repeats)) + len(sizes) * repeats
    with (
        tempfile.TemporaryDirectory() as folder,
        Comparison(implementations, threads, runs, tell) as comparison,
        comparison.machine(*limits) as best,
    ):
        clock = blas_clock.compiled(Path(folder))
        comparison.environments["cpp"] = blas_clock.environment(clock, best.libraries())
        cases: list[dict[str, Any]] = []
        for name, size in sizes:
            comparison.start()
            if not cases:
                check(comparison)
            cases.append({"name": name} | _case(size, comparison, best, repeats))
        return {
            "benchmark": "stack",
            "machine": machine.describe(threads),
            "versions": comparison.versions,
            "repeats": repeats,
            "compared_with": implementations[0].key,
            "cases": cases,
        }


def check(comparison: Comparison) -> None:
    """All implementations must compute the same scores and gradients on a tiny map."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}

    def compute(worker: Worker) -> dict[str, np.ndarray]:
        worker.build(TINY)
        if not arrays:  # of the baseline, which tells names and shapes
            worker.run()
            for name, made in worker.results().items():
                given = name.removesuffix("_diff") if name.endswith("_diff") else f"{name}_diff"
                arrays[given] = rng.uniform(-0.5, 0.5, made.shape).astype(np.float32)
        worker.load(arrays)
        worker.run()
        return worker.results()

    check_equal(comparison.each(compute), comparison.label)


def _case(size: StackSize, comparison: Comparison, best: Worker, repeats: int) -> dict[str, Any]:
    products: list[Product] = []

    def prepare(worker: Worker) -> None:
        worker.build(TINY)  # so that what the libraries hold themselves is there already
        worker.run()
        worker.build(size)
        worker.warm_up()
        if not products and worker is comparison.workers.get("cpp"):
            products.extend(worker.products())
            best.load(products)

    best.load(products)
    measured = comparison.measure(prepare, repeats, {"machine": best})
    limits = measured.pop("machine")
    rates = best.rates()
    case = {
        "size": size.as_dict(),
        "one_at_a_time": comparison.one_at_a_time,
        "gemm": of(limits, lambda m: rates["square"] / m["square"] / 1e9).as_dict(),
        "copy": of(limits, lambda m: rates["copy"] / m["copy"] / 1e9).as_dict(),
        "implementations": [
            _row(implementation, size, comparison, measured, limits, rates)
            for implementation in comparison.implementations
        ],
    }
    if products:
        case["breakdown"] = breakdown(
            size, measured["cpp"], limits, rates, comparison.peaks_mib["cpp"]
        )
    return case


def _row(
    implementation: Implementation,
    size: StackSize,
    comparison: Comparison,
    measured: dict[str, list[Measured | None]],
    limits: list[Measured | None],
    rates: dict[str, int],
) -> dict[str, Any]:
    row: dict[str, Any] = {"key": implementation.key, "label": implementation.label}
    if implementation.key not in measured:
        return row | {"left_out": comparison.left_out[implementation.key]}
    runs = measured[implementation.key]
    flop = counts.stack_flop(size, tiled=implementation.key == "literal").total
    square = rates["square"]
    return row | {
        "rounds": sum(run is not None for run in runs),
        "forward_ms": milliseconds(runs, "forward"),
        "backward_ms": milliseconds(runs, "backward"),
        "total_ms": of(runs, lambda m: 1e3 * total(m)).as_dict(),
        "ratio": ratio(runs, measured[comparison.baseline.key]).as_dict(),
        "gflop": flop / 1e9,
        "gflops": of(runs, lambda m: flop / total(m) / 1e9).as_dict(),
        "of_gemm": ratio(
            runs, limits, lambda m: flop / total(m), lambda m: square / m["square"]
        ).as_dict(),
        "peak_mib": comparison.peaks_mib[implementation.key],
    }


def choose(
    sizes: Iterable[str], batches: Iterable[int], quick: bool
) -> list[tuple[str, StackSize]]:
    """Sizes by name or as HxW[xC], each with every batch; those of the models by default."""
    known = QUICK if quick else SIZES
    named = {text: _size(text) for text in sizes} or known
    batches = tuple(batches) or ((2,) if quick else (1, 2))
    return [
        (f"{name}, batch {batch}", replace(size, batch=batch))
        for name, size in named.items()
        for batch in batches
    ]


def choose_implementations(keys: str | None, quick: bool = False) -> list[Implementation]:
    """Implementations by their keys, separated by commas.

    All of them by default, but a quick run does not wait for PyTorch's compiler.
    """
    known = [each.key for each in IMPLEMENTATIONS if not (quick and each.key == "compiled")]
    wanted = keys.split(",") if keys else known
    return select(IMPLEMENTATIONS, wanted, f"--implementations {keys}")


def _size(text: str) -> StackSize:
    if text in SIZES:
        return SIZES[text]
    match = re.fullmatch(r"(\d+)x(\d+)(?:x(\d+))?", text)
    if not match or min(map(int, match.groups("1024"))) < 1:
        raise UsageError(f"--size {text}: give height x width in positions, such as 41x41x1024")
    height, width, channels = map(int, match.groups("1024"))
    if min(height, width) < StackSize.grid:
        raise UsageError(f"--size {text}: the global grid needs at least 3 positions each way")
    return StackSize(height=height, width=width, channels=channels)
