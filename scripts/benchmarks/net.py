"""`lglstm bench net`: a training iteration, and a single image, of whole models."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.implementations import (
    TORCH_ENVIRONMENT,
    Comparison,
    Implementation,
    check_equal,
    select,
)
from benchmarks.timing import PASSES, Measured, milliseconds, of, ratio, total
from benchmarks.worker import Worker
from lglstm.caffe_files import read_net
from lglstm.common.convolution_engine import VARIABLE
from lglstm.common.errors import UsageError

Arrays = dict[str, np.ndarray]
"""Inputs, gradients or outputs of a net by their names."""


def _caffe(key: str, label: str, engine: str | None) -> Implementation:
    return Implementation(
        key, label, "benchmarks.caffe_net:CaffeNet", environment={VARIABLE: engine}
    )


def _torch(key: str, label: str, form: str) -> Implementation:
    return Implementation(
        key, label, "benchmarks.torch_net:TorchNet", (form, "threads"), TORCH_ENVIRONMENT,
        package="torch",
    )  # fmt: skip


CAFFE_ENGINES = (
    _caffe("stock", "Caffe", None),
    _caffe("onednn", "Caffe, oneDNN", "onednn"),
    _caffe("onednn_winograd", "Caffe, oneDNN Winograd", "onednn_winograd"),
    _caffe("onednn_bf16", "Caffe, oneDNN bf16", "onednn_bf16"),
)
TORCH_FORMS = (
    _torch("torch", "PyTorch", "eager"),
    _torch("channels_last", "PyTorch, channels last", "channels_last"),
    _torch("compiled", "PyTorch, compiled", "compiled"),
    _torch("torch_bf16", "PyTorch, bf16", "bf16"),
)
IMPLEMENTATIONS = (*CAFFE_ENGINES, *TORCH_FORMS)
DEFAULT = tuple(each.key for each in IMPLEMENTATIONS if each.key != "compiled")
QUICK_DEFAULT = ("stock", "onednn_winograd", "torch")

COMPARED_WITH = "torch"
PARTS = ("backbone", "stack", "losses")
TASKS = {"train": "training iteration", "image": "one image, forward"}
MODELS, QUICK = ("horse", "atr"), ("demo",)

INPUT_STD = 50
"""Of photos minus the mean, about."""

CASE_S = 240
"""No further round of a model and task is begun that would end after so many seconds."""

RATE = 1e-6
"""Learning rate: so small that random labels do no harm in the rounds."""

TOLERANCE = {"loss": 1e-3, "score": 1e-3}
GRADIENT_TOLERANCE = 5e-2
"""Relative to the largest of an array.

Gradients through a whole net in single precision jump: where a ReLU's input is nearly zero, or two
values under a maximum nearly equal, the last bit of an activation decides where a gradient goes.
Engines whose activations agree to 1e-6 differ by some 1e-3 in the first gradients; a mistake
differs by 1.
"""

BF16 = ("onednn_bf16", "openvino_bf16", "torch_bf16")
"""Implementations that round factors to bfloat16, by up to 0.4 % in every layer."""
BF16_TOLERANCE = {"loss": 2e-2, "score": 0.1}
BF16_GRADIENT_TOLERANCE = 0.7
"""By the norm, since single values of a gradient go elsewhere; of unrelated gradients it is 1.4."""


def run(
    folders: Mapping[str, Path],
    implementations: Iterable[Implementation],
    tasks: Iterable[str] = tuple(TASKS),
    *,
    repeats: int,
    threads: int,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure every implementation on every model; returns the object that `--json` prints.

    folders: of the models' prototxts, by name. Inputs and weights are random.
    Raises InputError if an implementation computes another loss, other gradients
    or another prediction than the baseline.
    """
    implementations, tasks = list(implementations), list(tasks)
    runs = len(folders) * len(implementations) * (1 + len(tasks) * (1 + repeats))
    with (
        tempfile.TemporaryDirectory() as temporary,
        Comparison(implementations, threads, runs, tell) as comparison,
    ):
        cases = []
        for model, folder in folders.items():
            weights = Path(temporary) / f"{model}.caffemodel"
            comparison.run_alone(comparison.baseline, methodcaller("make_weights", folder, weights))
            inputs = random_inputs(folder / "train.prototxt")
            _check(comparison, folder, weights, inputs)
            for task in tasks:
                arguments = (folder, weights, task, inputs)
                case = _case(comparison, arguments, repeats)
                cases.append({"model": model, "task": task, "batch": _batch(task, inputs)} | case)
        has_torch = COMPARED_WITH in comparison.versions
        return {
            "benchmark": "net",
            "machine": machine.describe(threads),
            "versions": comparison.versions,
            "repeats": repeats,
            "compared_with": COMPARED_WITH if has_torch else comparison.baseline.key,
            "cases": cases,
        }


def random_inputs(net_file: Path) -> dict[str, np.ndarray]:
    """Noise like photos minus the mean, (B, 3, H, W), and random labels, (B, 1, h, w)."""
    net = read_net(net_file, "TRAIN")
    classes = next(layer.top_shapes[0][1] for layer in net.layers if layer.tops[0] == "score1")
    rng = np.random.default_rng(1)
    return {
        "data": rng.normal(0, INPUT_STD, net.inputs["data"]).astype(np.float32),
        "label": rng.integers(0, classes, net.inputs["label"]).astype(np.float32),
    }


def choose_implementations(keys: str | None, quick: bool = False) -> list[Implementation]:
    """Implementations by their keys, separated by commas; the first must be one of Caffe's."""
    given = f"--implementations {keys}"
    known = QUICK_DEFAULT if quick else DEFAULT
    implementations = select(IMPLEMENTATIONS, keys.split(",") if keys else known, given)
    if implementations[0].package:
        raise UsageError(f"{given}: begin with one of Caffe's, which makes the weights")
    return implementations


def _check(comparison: Comparison, folder: Path, weights: Path, inputs: Arrays) -> None:
    results = {}
    for implementation in comparison.implementations:
        made = comparison.run_alone(
            implementation, lambda worker: worker.check(folder, weights, inputs)
        )
        if made is not None:
            results[implementation.key] = made
        comparison.step()
    _check_results(results, comparison.label)


def _check_results(results: Mapping[str, Arrays], label: Callable[[str], str]) -> None:
    """Raise InputError unless all computed what the first did, as exactly as each can."""
    first, *others = results
    for key in others:
        pair = {first: results[first], key: results[key]}
        if key in BF16:
            check_equal(pair, label, BF16_GRADIENT_TOLERANCE, BF16_TOLERANCE, by_norm=True)
        else:
            check_equal(pair, label, GRADIENT_TOLERANCE, TOLERANCE)


def _case(comparison: Comparison, arguments: tuple, repeats: int) -> dict[str, Any]:
    def prepare(worker: Worker) -> None:
        worker.build(*arguments)
        worker.warm_up()

    comparison.start()
    measured = comparison.measure(prepare, repeats, seconds=CASE_S)
    reference = measured.get(COMPARED_WITH, measured[comparison.baseline.key])
    return {
        "one_at_a_time": comparison.one_at_a_time,
        "rounds": len(reference),
        "implementations": [
            net_row(implementation, comparison, measured, reference)
            for implementation in comparison.implementations
        ],
    }


def net_row(
    implementation: Implementation,
    comparison: Comparison,
    measured: dict[str, list[Measured | None]],
    reference: list[Measured | None],
) -> dict[str, Any]:
    """What is printed of one implementation."""
    row: dict[str, Any] = {"key": implementation.key, "label": implementation.label}
    if implementation.key not in measured:
        return row | {"left_out": comparison.left_out[implementation.key]}
    runs = measured[implementation.key]
    measured_names = next(run for run in runs if run is not None)
    ms = {name: milliseconds(runs, name) for name in measured_names}
    return (
        row
        | {f"{name}_ms": ms.pop(name) for name in PASSES if name in ms}
        | {
            "total_ms": of(runs, lambda m: 1e3 * total(m)).as_dict(),
            "ratio": ratio(runs, reference).as_dict(),
            "peak_mib": comparison.peaks_mib[implementation.key],
            "parts_ms": ms,
        }
    )


def _batch(task: str, inputs: Arrays) -> int:
    return len(inputs["data"]) if task == "train" else 1
