"""Is one net better than another, or are the test images few? A paired bootstrap answers.

Both nets have parsed the same images. A resample draws as many images as there are, with
replacement, and adds up the confusion matrices of those images for either net; the difference of a
metric over many resamples shows how far it depends on which images were tested. Images are drawn as
wholes, because the pixels of one image stand or fall together.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.progress import Report, no_report
from lglstm.evaluation import evaluation_json
from lglstm.evaluation.evaluation_json import StoredEvaluation
from lglstm.evaluation.evaluator import confusion_matrices
from lglstm.evaluation.image_list import read_image_list
from lglstm.evaluation.label_maps import find_label_maps
from lglstm.evaluation.metrics import Metrics, measure

CONFIDENCE = 95  # percent


@dataclass(frozen=True)
class MetricDifference:
    """How much better the second net is in one metric, in percentage points.

    metric: a key such as "mean_iou" or "iou.head". baseline, other: the metric over all images,
    percent. low, high: the interval that holds CONFIDENCE percent of the resampled differences.
    better: the share of the resamples, 0 to 1, in which the second is ahead.
    """

    metric: str
    baseline: float
    other: float
    low: float
    high: float
    better: float

    @property
    def difference(self) -> float:
        return self.other - self.baseline

    def as_dict(self) -> dict[str, object]:
        return vars(self) | {"difference": self.difference}


@dataclass(frozen=True)
class PairedComparison:
    """The differences of `other` against `baseline`, two evaluations of the same images."""

    baseline: StoredEvaluation
    other: StoredEvaluation
    images: int
    samples: int
    differences: tuple[MetricDifference, ...]

    def as_dict(self) -> dict[str, object]:
        return {
            "baseline": str(self.baseline.path.parent),
            "other": str(self.other.path.parent),
            "images": self.images,
            "samples": self.samples,
            "confidence": CONFIDENCE,
            "differences": [difference.as_dict() for difference in self.differences],
        }


def compare(
    folders: Sequence[str | os.PathLike[str]],
    *,
    list_path: Path | None = None,
    root: Path | None = None,
    samples: int = 10_000,
    seed: int = 1,
    report: Report = no_report,
) -> list[PairedComparison]:
    """Compare evaluations with the first of them.

    folders: what `lglstm evaluate` wrote, each with its evaluation.json; the label maps are looked
    for where that file says, or beside it. list_path: the list of images, by default the one of the
    first. Raises InputError when the evaluations are not of the same images and classes.
    """
    stored = [evaluation_json.read(Path(folder) / evaluation_json.FILE) for folder in folders]
    labels = stored[0].labels
    for other in stored[1:]:
        if other.labels.names != labels.names:
            raise InputError(
                f"{other.path}: has the labels {other.labels.name}, but {stored[0].path} has "
                f"{labels.name}; compare evaluations of the same classes"
            )
    images = read_image_list(list_path or stored[0].provenance.list, root)
    matrices = []
    for done, evaluation in enumerate(stored, start=1):
        maps = find_label_maps(_label_maps(evaluation), images)
        matrices.append(np.stack(list(confusion_matrices(images, maps, labels))))
        report(done, len(stored))
    return [
        PairedComparison(
            stored[0],
            other,
            len(images),
            samples,
            bootstrap(matrices[0], counted, labels.names, samples, seed),
        )
        for other, counted in zip(stored[1:], matrices[1:], strict=True)
    ]


def bootstrap(
    baseline: np.ndarray, other: np.ndarray, names: tuple[str, ...], samples: int, seed: int
) -> tuple[MetricDifference, ...]:
    """Resample images and measure both nets on each resample.

    baseline, other: confusion matrices by image, (images, C, C). Metrics that are undefined for
    either net are left out; resamples without a class count where the metric is defined.
    """
    count, classes = len(baseline), len(names)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), samples)
    both = np.stack([baseline, other]).reshape(2, count, classes**2)
    resampled = (drawn.astype(np.float64) @ both).reshape(2, samples, classes, classes)
    whole = both.sum(axis=1).reshape(2, classes, classes)
    results = []
    for key in ("mean_iou", "foreground_iou", "pixel_accuracy", *(f"iou.{n}" for n in names)):
        values = [Metrics(matrix, names).value(key) for matrix in whole]
        if None in values:
            continue
        of_baseline, of_other = measure(key, resampled, names)
        gain = 100 * (of_other - of_baseline)
        gain = gain[~np.isnan(gain)]
        low, high = np.percentile(gain, [50 - CONFIDENCE / 2, 50 + CONFIDENCE / 2])
        better = float((gain > 0).mean())
        first, second = (100 * value for value in values if value is not None)
        results.append(MetricDifference(key, first, second, float(low), float(high), better))
    return tuple(results)


def _label_maps(evaluation: StoredEvaluation) -> Path:
    """Where the label maps are: as written down, or, in a folder that was moved, beside it."""
    beside = evaluation.path.parent / "predictions"
    return beside if beside.is_dir() else Path(evaluation.provenance.predictions)
