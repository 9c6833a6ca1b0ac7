"""What to convert, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lglstm.common.labels import LabelSet


def _unknown(classes: int, described: LabelSet | None) -> LabelSet | None:
    return described


@dataclass(frozen=True)
class Truth:
    """Photos with true label maps, to score a model on.

    confusion: from the number of a photo, its label map, (H, W) uint8, and the number of classes to
    a confusion matrix; those of many photos add up. mean_iou: of such a matrix, 0 to 1.
    """

    photos: Sequence[Path]
    confusion: Callable[[int, np.ndarray, int], np.ndarray]
    mean_iou: Callable[[np.ndarray], float]


PRECISIONS = ("float32", "float16", "int8")


@dataclass(frozen=True)
class ConvertOptions:
    """What a user asks of one conversion.

    deploy: the deploy net; a train.prototxt beside it is read, too. weights: any file that
        `read.read_weights` reads.
    format: one of `write.FORMATS`. output: the file to make.
    verify: whether to compare the result. reference: a stored one to compare with, instead of
        Caffe. photo: the photo to compare on.
    any_size, preprocessing, labels: see `onnx_graph.to_onnx`.
    precision: one of PRECISIONS. calibration: the photos that int8 is calibrated on. truth: what
        the loss by another precision is measured on.
    labels_for: from the number of classes, and the label set that the weights file describes, to
        that of the result; None if nobody knows. license: of the weights; None: as described.
    versions: of the program that converts, for the report.
    """

    deploy: Path
    weights: Path
    format: str
    output: Path
    verify: bool = True
    reference: Path | None = None
    photo: Path | None = None
    any_size: bool = False
    preprocessing: bool = False
    labels: bool = False
    precision: str = "float32"
    calibration: Sequence[Path] = ()
    truth: Truth | None = None
    labels_for: Callable[[int, LabelSet | None], LabelSet | None] = _unknown
    license: str | None = None
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def inputs(self) -> list[Path]:
        """The files that are read, none of which the result may replace."""
        photos = [*self.calibration, *(self.truth.photos if self.truth else ())]
        single = (self.deploy, self.weights, self.reference, self.photo)
        return [*(path for path in single if path is not None), *photos]
