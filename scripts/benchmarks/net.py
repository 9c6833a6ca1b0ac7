"""`lglstm bench net`: a training iteration, and a single image, of whole models."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.rivals import TORCH_ENVIRONMENT, Field, Rival, check_equal, chosen
from benchmarks.timing import Measured, of, ratio, total
from benchmarks.worker import Worker
from lglstm.caffe_files import read_net
from lglstm.common.errors import InputError, UsageError

ENGINE = "CAFFE_CONVOLUTION_ENGINE"


def _caffe(key: str, label: str, engine: str | None) -> Rival:
    return Rival(key, label, "benchmarks.caffe_net:CaffeNet", environment={ENGINE: engine})


def _torch(key: str, label: str, form: str) -> Rival:
    return Rival(key, label, "benchmarks.torch_net:TorchNet", (form, "threads"), TORCH_ENVIRONMENT)


RIVALS = (
    _caffe("stock", "Caffe", None),
    _caffe("onednn", "Caffe, oneDNN", "onednn"),
    _caffe("onednn_winograd", "Caffe, oneDNN Winograd", "onednn_winograd"),
    _torch("torch", "PyTorch", "eager"),
    _torch("channels_last", "PyTorch, channels last", "channels_last"),
    _torch("compiled", "PyTorch, compiled", "compiled"),
)
DEFAULT = tuple(rival.key for rival in RIVALS if rival.key != "compiled")

COMPARED_WITH = "torch"
PARTS = ("backbone", "stack", "losses")
TASKS = {"train": "training iteration", "image": "one image, forward"}
MODELS, QUICK = ("horse", "atr"), ("demo",)

INPUT_STD = 50
"""Of photos minus the mean, about."""

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


def run(
    folders: Mapping[str, Path],
    rivals: Iterable[Rival],
    tasks: Iterable[str] = tuple(TASKS),
    *,
    repeats: int,
    threads: int,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure every model with every rival; returns the object that `--json` prints.

    folders: of the models' prototxts, by name. Inputs and weights are random.
    Raises InputError if a rival computes another loss, other gradients or
    another prediction than the first.
    """
    rivals, tasks = list(rivals), list(tasks)
    runs = len(folders) * len(rivals) * (1 + len(tasks) * (1 + repeats))
    with tempfile.TemporaryDirectory() as temporary, Field(rivals, threads, runs, tell) as field:
        cases = []
        for model, folder in folders.items():
            weights = Path(temporary) / f"{model}.caffemodel"
            field.visit(field.first, methodcaller("make_weights", folder, weights))
            inputs = random_inputs(folder / "train.prototxt")
            _check(field, folder, weights, inputs)
            for task in tasks:
                arguments = (folder, weights, task, inputs)
                case = _case(field, arguments, repeats)
                cases.append({"model": model, "task": task, "batch": _batch(task, inputs)} | case)
        return {
            "benchmark": "net",
            "machine": machine.describe(threads),
            "versions": field.versions,
            "repeats": repeats,
            "compared_with": COMPARED_WITH if COMPARED_WITH in field.versions else field.first.key,
            "cases": cases,
        }


def data_layer(net: Any, net_file: Path) -> Any:
    """The one SegData layer of the parsed training net in `net_file`."""
    layers = [layer for layer in net.layer if layer.python_param.layer == "SegData"]
    if len(layers) != 1:
        raise InputError(f"{net_file}: has {len(layers)} SegData layers; name a training net")
    return layers[0]


def random_inputs(net_file: Path) -> dict[str, np.ndarray]:
    """Noise like photos minus the mean, (B, 3, H, W), and random labels, (B, 1, h, w)."""
    net = read_net(net_file, "TRAIN")
    classes = next(layer.top_shapes[0][1] for layer in net.layers if layer.tops[0] == "score1")
    rng = np.random.default_rng(1)
    return {
        "data": rng.normal(0, INPUT_STD, net.inputs["data"]).astype(np.float32),
        "label": rng.integers(0, classes, net.inputs["label"]).astype(np.float32),
    }


def choose_rivals(keys: str | None) -> list[Rival]:
    """Rivals by their keys, separated by commas; the first must be a Caffe."""
    rivals = chosen(RIVALS, keys.split(",") if keys else DEFAULT, f"--rivals {keys}")
    if rivals[0].needs_torch:
        raise UsageError(f"--rivals {keys}: begin with one of Caffe's, which makes the weights")
    return rivals


def _check(field: Field, folder: Path, weights: Path, inputs: dict[str, np.ndarray]) -> None:
    results = {}
    for rival in field.rivals:
        made = field.visit(rival, lambda worker: worker.check(folder, weights, inputs))
        if made is not None:
            results[rival.key] = made
        field.step()
    check_equal(results, field.label, GRADIENT_TOLERANCE, TOLERANCE)


def _case(field: Field, arguments: tuple, repeats: int) -> dict[str, Any]:
    def prepare(worker: Worker) -> None:
        worker.build(*arguments)
        worker.warm_up()

    field.start()
    measured = field.compete(prepare, repeats)
    reference = measured.get(COMPARED_WITH, measured[field.first.key])
    return {
        "one_at_a_time": field.one_at_a_time,
        "rivals": [_row(rival, field, measured, reference) for rival in field.rivals],
    }


def _row(
    rival: Rival,
    field: Field,
    measured: dict[str, list[Measured | None]],
    reference: list[Measured | None],
) -> dict[str, Any]:
    row: dict[str, Any] = {"key": rival.key, "label": rival.label}
    if rival.key not in measured:
        return row | {"left_out": field.left_out[rival.key]}
    runs = measured[rival.key]
    names = [name for name in runs[0] if name not in ("forward", "backward", "update")]
    passes = [name for name in ("forward", "backward", "update") if name in runs[0]]
    row |= {f"{name}_ms": of(runs, lambda m, name=name: 1e3 * m[name]).as_dict() for name in passes}
    return row | {
        "total_ms": of(runs, lambda m: 1e3 * total(m)).as_dict(),
        "ratio": ratio(runs, reference).as_dict(),
        "peak_mib": field.peaks_mib[rival.key],
        "parts_ms": {
            name: of(runs, lambda m, name=name: 1e3 * m[name]).as_dict() for name in names
        },
    }


def _batch(task: str, inputs: dict[str, np.ndarray]) -> int:
    return len(inputs["data"]) if task == "train" else 1
