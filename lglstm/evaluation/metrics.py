"""Every number of the paper's tables, as pure functions of one confusion matrix.

The matrix is C×C, rows truth, columns prediction, class 0 the background; it counts all pixels of
all images of a test set, at the size of the ground truth (the protocol of PaperDoll's evaluator,
which the paper follows). Three questions are settled here and nowhere else:

- **Ignored pixels** (label 255) are left out of the matrix, whatever was predicted there.
- **Absent classes.** A ratio whose denominator is zero is undefined (NaN): the IoU and F-1 of a
  class that is neither in the truth nor in the prediction, the recall of a class that is not in the
  truth, the precision of a class that was never predicted.
- **Averages** are plain means over all classes, background included, undefined ones dropped. The
  average F-1 is the mean of the classes' F-1, not 2PR/(P + R) of the averages.

The functions also take stacks of matrices, (…, C, C), and give a metric of each. All ratios are in
[0, 1]; percent is a matter of printing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.labels import IGNORE

AVERAGES = {
    "pixel_accuracy": "Pixel accuracy",
    "foreground_accuracy": "Foreground accuracy",
    "mean_iou": "Mean IoU",
    "foreground_iou": "Foreground IoU",
    "average_precision": "Average precision",
    "average_recall": "Average recall",
    "average_f1": "Average F-1",
}
"""The metrics that are one number, and how they are called in tables."""

PER_CLASS = {"iou": "IoU", "precision": "Precision", "recall": "Recall", "f1": "F-1"}
"""The metrics that are one number per class."""


def confusion_matrix(
    truth: np.ndarray, prediction: np.ndarray, num_classes: int, ignore_label: int = IGNORE
) -> np.ndarray:
    """Count (true class, predicted class) pairs.

    truth, prediction: integer arrays of the same shape, of any number of axes.
    Returns int64 (num_classes, num_classes), rows truth; matrices of many images just add up.
    Raises InputError when the shapes differ or a class outside 0 … num_classes-1 occurs at a
    position that counts.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape:
        raise InputError(
            f"the truth is {_size(truth)} and the prediction {_size(prediction)}; "
            "compare label maps of the same size"
        )
    counted = truth != ignore_label
    truth = truth[counted].astype(np.int64)
    prediction = prediction[counted].astype(np.int64)
    for name, labels in (("truth", truth), ("prediction", prediction)):
        if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
            wrong = labels[(labels < 0) | (labels >= num_classes)][0]
            raise InputError(
                f"the {name} has class {wrong}, but there are {num_classes} classes "
                f"(0 to {num_classes - 1}); use labels of the same set"
            )
    pairs = np.bincount(truth * num_classes + prediction, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def pixel_accuracy(matrix: np.ndarray) -> np.ndarray:
    """Share of pixels that got their true class ("Pix.Acc", "Acc.")."""
    return _ratio(_hits(matrix).sum(axis=-1), matrix.sum(axis=(-2, -1)))


def foreground_accuracy(matrix: np.ndarray) -> np.ndarray:
    """Share of the true foreground pixels that got their true class ("F.g. acc.")."""
    return _ratio(_hits(matrix)[..., 1:].sum(axis=-1), matrix[..., 1:, :].sum(axis=(-2, -1)))


def iou(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union per class: TP / (truth + predicted - TP), (…, C)."""
    hits = _hits(matrix)
    return _ratio(hits, matrix.sum(axis=-1) + matrix.sum(axis=-2) - hits)


def foreground_iou(matrix: np.ndarray) -> np.ndarray:
    """IoU of "any part" against background: the paper's "Fg", not part of its mean IoU."""
    foreground = matrix[..., 1:, 1:].sum(axis=(-2, -1))
    return _ratio(foreground, matrix.sum(axis=(-2, -1)) - matrix[..., 0, 0])


def precision(matrix: np.ndarray) -> np.ndarray:
    """TP / predicted per class, (…, C)."""
    return _ratio(_hits(matrix), matrix.sum(axis=-2))


def recall(matrix: np.ndarray) -> np.ndarray:
    """TP / truth per class, (…, C)."""
    return _ratio(_hits(matrix), matrix.sum(axis=-1))


def f1(matrix: np.ndarray) -> np.ndarray:
    """2 TP / (predicted + truth) per class, (…, C)."""
    return _ratio(2 * _hits(matrix), matrix.sum(axis=-2) + matrix.sum(axis=-1))


def mean(values: np.ndarray) -> np.ndarray:
    """Plain mean of the defined values along the last axis; NaN where none is defined."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1))


def measure(key: str, matrix: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """One metric by its key: "mean_iou", or "iou.head" for a class; NaN where it is undefined.

    matrix: one or more confusion matrices, (…, C, C), of the classes `names`. Returns (…).
    Raises KeyError for a metric or class that there is not.
    """
    metric, _, name = key.partition(".")
    if name:
        return _PER_CLASS[metric](matrix)[..., {n: k for k, n in enumerate(names)}[name]]
    return _AVERAGES[metric](matrix)


_PER_CLASS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "iou": iou,
    "precision": precision,
    "recall": recall,
    "f1": f1,
}
_AVERAGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "pixel_accuracy": pixel_accuracy,
    "foreground_accuracy": foreground_accuracy,
    "mean_iou": lambda matrix: mean(iou(matrix)),
    "foreground_iou": foreground_iou,
    "average_precision": lambda matrix: mean(precision(matrix)),
    "average_recall": lambda matrix: mean(recall(matrix)),
    "average_f1": lambda matrix: mean(f1(matrix)),
}


@dataclass(frozen=True)
class Metrics:
    """All metrics of one confusion matrix; `names` are its classes, background first."""

    matrix: np.ndarray
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.matrix.shape != (len(self.names),) * 2:
            raise InputError(
                f"{len(self.names)} class names for a confusion matrix of "
                f"{'×'.join(map(str, self.matrix.shape))}; give one name per class"
            )

    @property
    def averages(self) -> dict[str, float]:
        """Metric → number, keys and order of AVERAGES."""
        return {key: float(_AVERAGES[key](self.matrix)) for key in AVERAGES}

    @property
    def per_class(self) -> dict[str, dict[str, float]]:
        """Metric → class name → number, keys and order of PER_CLASS."""
        return {
            key: dict(zip(self.names, map(float, _PER_CLASS[key](self.matrix)), strict=True))
            for key in PER_CLASS
        }

    def value(self, key: str) -> float | None:
        """One number by its key: "mean_iou", or "iou.head" for a class; None when undefined.

        Raises KeyError for a metric or class that there is not.
        """
        return _null_if_nan(float(measure(key, self.matrix, self.names)))

    def as_dict(self) -> dict[str, object]:
        """Everything for JSON, undefined numbers as null."""
        return {
            "pixels": int(self.matrix.sum()),
            **{key: _null_if_nan(number) for key, number in self.averages.items()},
            **{
                key: {name: _null_if_nan(number) for name, number in numbers.items()}
                for key, numbers in self.per_class.items()
            },
            "classes": list(self.names),
            "confusion_matrix": self.matrix.tolist(),
        }


def _hits(matrix: np.ndarray) -> np.ndarray:
    """The true positives of each class, (…, C)."""
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient in float64, NaN where the denominator is zero."""
    denominator = np.asarray(denominator, np.float64)
    undefined = np.full(denominator.shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator != 0)


def _null_if_nan(number: float) -> float | None:
    return None if np.isnan(number) else number


def _size(array: np.ndarray) -> str:
    """The lengths of the axes, as people write them."""
    return "×".join(map(str, array.shape))
