"""Label maps against the truth: the metrics of a whole list, and which images were parsed best."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.images import read_label
from lglstm.common.labels import LabelSet
from lglstm.evaluation import nets, predictions
from lglstm.evaluation.inference import THREADS, Parser
from lglstm.evaluation.metrics import Metrics, confusion_matrix
from lglstm.evaluation.predictions import Progress, no_progress
from lglstm.evaluation.samples import Sample, read_list


@dataclass(frozen=True)
class ImageScore:
    """One image: its truth, its prediction, and its own numbers (None when undefined)."""

    sample: Sample
    prediction: Path
    mean_iou: float | None
    pixel_accuracy: float | None


@dataclass(frozen=True)
class Evaluation:
    """A list of images scored.

    metrics: of all images together. images: in the order of the list.
    layers: output name → metrics of each earlier LG-LSTM layer's own prediction, and of the last.
    """

    labels: LabelSet
    metrics: Metrics
    images: tuple[ImageScore, ...]
    layers: dict[str, Metrics] = field(default_factory=dict)


def evaluate_list(
    parser: Parser,
    list_path: str | Path,
    labels: LabelSet,
    out: str | Path,
    *,
    root: str | Path | None = None,
    progress: Progress = no_progress,
) -> Evaluation:
    """Predict every image of a list into the folder `out` and score it; both can be resumed.

    labels: the classes of net and label maps. root: what the list's paths are relative to, by
    default the list's folder. Raises InputError for anything that does not fit.
    """
    samples = read_list(list_path, root)
    check_classes(parser, labels)
    predictions.predict(parser, samples, labels, Path(out), progress)
    folders = {name: predictions.folder_of(Path(out), name) for name in parser.outputs}
    evaluation = score(samples, folders.pop(nets.OUTPUT), labels)
    earlier = {name: score(samples, folder, labels).metrics for name, folder in folders.items()}
    if not earlier:
        return evaluation
    layers = {**earlier, nets.OUTPUT: evaluation.metrics}
    return Evaluation(labels, evaluation.metrics, evaluation.images, layers)


def check_classes(parser: Parser, labels: LabelSet) -> None:
    """Refuse a label set that has not the net's number of classes."""
    if parser.num_classes != labels.num_classes:
        raise InputError(
            f"{parser.deploy}: scores {parser.num_classes} classes, but the label set "
            f"{labels.name} has {labels.num_classes}; choose the model's own with --labels"
        )


def score(
    samples: Sequence[Sample], folder: Path, labels: LabelSet, progress: Progress = no_progress
) -> Evaluation:
    """Score the label maps in `folder`, written by any program, against the truth of `samples`."""
    paths = predictions.find(folder, samples)
    total = np.zeros((labels.num_classes, labels.num_classes), np.int64)
    images = []
    with ThreadPoolExecutor(THREADS) as pool:
        matrices = pool.map(lambda pair: _matrix(*pair, labels), zip(samples, paths, strict=True))
        for sample, path, matrix in zip(samples, paths, matrices, strict=True):
            total += matrix
            own = Metrics(matrix, labels.names)
            images.append(
                ImageScore(sample, path, own.value("mean_iou"), own.value("pixel_accuracy"))
            )
            progress(len(images), len(samples))
    return Evaluation(labels, Metrics(total, labels.names), tuple(images))


def _matrix(sample: Sample, path: Path, labels: LabelSet) -> np.ndarray:
    truth = read_label(sample.label, labels.num_classes)
    prediction = read_label(path)
    try:
        return confusion_matrix(truth, prediction, labels.num_classes)
    except InputError as error:
        raise InputError(f"{path}, against {sample.label}: {error}") from error
