"""Label maps against the truth: the metrics of a whole list, and which images were parsed best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.images import read_label
from lglstm.common.labels import LabelSet
from lglstm.common.progress import Report, no_report
from lglstm.evaluation import label_maps, nets
from lglstm.evaluation.class_offsets import cross_fitted
from lglstm.evaluation.image_list import ListedImage, read_image_list
from lglstm.evaluation.label_choice import check_classes
from lglstm.evaluation.metrics import Metrics, confusion_matrix
from lglstm.evaluation.predictor import THREADS, Predictor


@dataclass(frozen=True)
class ImageScore:
    """One image: its truth, its prediction, and its own numbers (None when undefined)."""

    image: ListedImage
    prediction: Path
    mean_iou: float | None
    pixel_accuracy: float | None


@dataclass(frozen=True)
class Evaluation:
    """A list of images scored.

    metrics: of all images together. images: in the order of the list.
    layers: output name → metrics of each earlier LG-LSTM layer's own prediction, and of the last.
    class_offsets: what was added to the scores of the classes, of the first and of the last image's
    half of the list; empty as a rule.
    """

    labels: LabelSet
    metrics: Metrics
    images: tuple[ImageScore, ...]
    layers: dict[str, Metrics] = field(default_factory=dict)
    class_offsets: tuple[tuple[float, ...], ...] = ()


def evaluate_list(
    predictor: Predictor,
    list_path: str | Path,
    labels: LabelSet,
    folder: str | Path,
    *,
    root: str | Path | None = None,
    with_offsets: bool = False,
    report: Report = no_report,
) -> Evaluation:
    """Predict every image of a list into a folder and score it; a second call goes on.

    labels: the classes of net and label maps. root: what the list's paths are relative to, by
    default the list's folder. with_offsets: with the constants of `class_offsets` added to the
    scores. Raises InputError for anything that does not fit.
    """
    images = read_image_list(list_path, root)
    check_classes(predictor, labels)
    offsets = cross_fitted(predictor, images, labels.num_classes, report) if with_offsets else None
    label_maps.write_label_maps(predictor, images, labels, Path(folder), report, offsets)
    layers = {
        output: evaluate_label_maps(images, label_maps.folder_of(Path(folder), output), labels)
        for output in predictor.outputs
    }
    evaluation = layers[nets.OUTPUT]
    if offsets:
        used = tuple(tuple(own.tolist()) for own in (offsets[0], offsets[-1]))
        evaluation = replace(evaluation, class_offsets=used)
    if len(layers) == 1:
        return evaluation
    return replace(evaluation, layers={name: layer.metrics for name, layer in layers.items()})


def evaluate_label_maps(
    images: Sequence[ListedImage], folder: Path, labels: LabelSet, report: Report = no_report
) -> Evaluation:
    """Score the label maps in `folder`, written by any program, against the truth of `images`."""
    paths = label_maps.find_label_maps(folder, images)
    total = np.zeros((labels.num_classes, labels.num_classes), np.int64)
    scores = []

    matrices = confusion_matrices(images, paths, labels)
    for image, path, matrix in zip(images, paths, matrices, strict=True):
        total += matrix
        own = Metrics(matrix, labels.names)
        scores.append(ImageScore(image, path, own.value("mean_iou"), own.value("pixel_accuracy")))
        report(len(scores), len(images))
    return Evaluation(labels, Metrics(total, labels.names), tuple(scores))


def confusion_matrices(
    images: Sequence[ListedImage], label_maps: Sequence[Path], labels: LabelSet
) -> Iterator[np.ndarray]:
    """The confusion matrix, int64 (C, C), of each image and its label map, in their order."""
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(lambda image, path: _confusion(image, path, labels), images, label_maps)


def _confusion(image: ListedImage, path: Path, labels: LabelSet) -> np.ndarray:
    truth = read_label(image.label, labels.num_classes)
    prediction = read_label(path)
    try:
        return confusion_matrix(truth, prediction, labels.num_classes)
    except InputError as error:
        raise InputError(f"{path}, against {image.label}: {error}") from error
