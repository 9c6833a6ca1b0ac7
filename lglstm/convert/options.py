"""What to convert, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lglstm.common.labels import LabelSet


def _unknown(classes: int, described: LabelSet | None) -> LabelSet | None:
    return described


@dataclass(frozen=True)
class ConvertOptions:
    """What a user asks of one conversion.

    deploy: the deploy net; a train.prototxt beside it is read, too. weights: any file that
        `read.read_weights` reads.
    format: one of `write.FORMATS`. output: the file to make.
    verify: whether to compare the result. reference: a stored one to compare with, instead of
        Caffe. photo: the photo to compare on.
    any_size, preprocessing: see `onnx_graph.to_onnx`.
    labels_for: from the number of classes, and the label set that the weights file describes, to
        that of the result; None if nobody knows. license: of the weights; None: as described.
    float16: round the weights to half precision, and store them so.
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
    labels_for: Callable[[int, LabelSet | None], LabelSet | None] = _unknown
    license: str | None = None
    float16: bool = False
    versions: dict[str, str] = field(default_factory=dict)
