"""What `evaluate` and `predict` share: finding a model's files, its labels, and the device."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lglstm.common.errors import InputError
from lglstm.common.labels import LABEL_SETS, LabelSet, label_set
from lglstm.common.models import ModelFiles

if TYPE_CHECKING:
    from lglstm.evaluation.metrics import Metrics
    from lglstm.evaluation.weights import Loaded

LINE_SECONDS = 30
BY_CLASSES = {5: "horse", 18: "atr", 56: "fashionista56"}
"""The label set of a net that nobody described, by its number of classes."""


def registered(model: ModelFiles, option: str) -> str | None:
    """An option of a model of this project; None for nets from elsewhere."""
    from lglstm.prototxt_gen.registry import MODELS

    known = MODELS.get(model.name) if model.is_generated else None
    return getattr(known.options, option) if known else None


def choose_labels(
    asked: str | None, model: ModelFiles | None, num_classes: int | None, near: Path | None
) -> LabelSet:
    """The label set: asked for, the model's, the data set's `dataset.json`, by number of classes.

    near: a list of images, beside which data preparation leaves its dataset.json.
    """
    for name in (
        asked,
        model and registered(model, "label_set"),
        near and _label_set_beside(near),
        num_classes and BY_CLASSES.get(num_classes),
    ):
        if name:
            return label_set(name)
    raise InputError(
        f"it is not known what the labels mean; name them with --labels {'|'.join(LABEL_SETS)}"
    )


def choose_device(gpu: int | None, cpu: bool) -> int | None:
    """The GPU to use, None for the CPU: as asked, else the first GPU that Caffe can use."""
    from lglstm.evaluation.inference import quiet_caffe

    quiet_caffe()
    from lglstm.training.devices import caffe_has_cuda, gpu_count

    if cpu and gpu is not None:
        raise InputError("--cpu and --gpu exclude each other; give one of them")
    usable = gpu_count() if caffe_has_cuda() else 0
    if gpu is not None and gpu >= usable:
        why = (
            f"there are {usable} GPUs" if caffe_has_cuda() else "this Caffe was built without CUDA"
        )
        raise InputError(f"--gpu {gpu}: {why}; use --cpu, or a lower number")
    if cpu or not usable:
        return None
    return gpu or 0


def device_options(function: Callable) -> Callable:
    """Add --gpu and --cpu to a command."""
    function = click.option("--cpu", is_flag=True, help="Use the CPU even if there is a GPU.")(
        function
    )
    return click.option(
        "--gpu", type=click.IntRange(min=0), metavar="N", help="Use GPU number N (default: 0)."
    )(function)


labels_option = click.option(
    "--labels", metavar="NAME", help=f"Label set: {', '.join(LABEL_SETS)} (default: the model's)."
)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the time left, on stderr; yields a function of (done, total).

    Without a terminal a bar would fill the log with its frames: then a line every half a minute.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _progress_lines(what)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _progress_lines(what: str) -> Callable[[int, int], None]:
    told = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= LINE_SECONDS:
            told = time.monotonic()
            click.echo(f"{what}: {done} of {total}", err=True)

    return tell


def warn(sentence: str) -> None:
    click.echo(f"warning: {sentence}", err=True)


def initial_layers_warning(weights: str | Path, loaded: Loaded) -> str | None:
    """Say which layers the weights file did not hold; None when it held all."""
    if not loaded.initial:
        return None
    kept = ", ".join(loaded.initial[:6]) + (" …" if len(loaded.initial) > 6 else "")
    return (
        f"{weights} does not hold the layers {kept}, which keep their random initial values: "
        "these are initial weights, or weights of another model"
    )


def one_class_warning(names: tuple[str, ...], pixels: list[int]) -> str | None:
    """Say when nearly everything was predicted as one class; `pixels` per class."""
    total = sum(pixels)
    largest = max(range(len(pixels)), key=pixels.__getitem__)
    if not total or pixels[largest] < 0.99 * total:
        return None
    return (
        f"{pixels[largest] / total:.1%} of all pixels are predicted as {names[largest]}: the net "
        "is hardly trained, its training diverged, or these are weights of another model"
    )


def never_predicted_warning(metrics: Metrics) -> str | None:
    """Say which true classes were never predicted; the average precision is without them."""
    truth, predicted = metrics.matrix.sum(axis=1), metrics.matrix.sum(axis=0)
    never = [name for k, name in enumerate(metrics.names) if truth[k] and not predicted[k]]
    if not never:
        return None
    named = ", ".join(never[:6]) + (" …" if len(never) > 6 else "")
    return (
        f"{len(never)} of the {len(metrics.names)} classes were never predicted ({named}): their "
        "precision is undefined, and the average precision is that of the other classes"
    )


def _label_set_beside(list_path: Path) -> str | None:
    try:
        return json.loads((list_path.parent / "dataset.json").read_text(encoding="utf-8"))[
            "label_set"
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None
