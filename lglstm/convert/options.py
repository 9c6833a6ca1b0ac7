"""What to convert, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ConvertOptions:
    """What a user asks of one conversion.

    deploy: the deploy net; a train.prototxt beside it is read, too. weights: any file that
        `read.read_weights` reads.
    format: one of `write.FORMATS`. output: the file to make.
    verify: whether to compare the result. reference: a stored one to compare with, instead of
        Caffe. photo: the photo to compare on.
    any_size, preprocessing: see `onnx_graph.to_onnx`.
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
    versions: dict[str, str] = field(default_factory=dict)
