"""evaluation.json: what was measured, on what and with what, so that tables can be made of it.

Metrics are ratios as evaluation/metrics.py gives them; the rows of `table` are in percent, like the
paper's.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lglstm.common.errors import InputError
from lglstm.common.files import write_text
from lglstm.evaluation.evaluator import Evaluation
from lglstm.evaluation.paper import Cell

FILE = "evaluation.json"
FORMAT = 1


@dataclass(frozen=True)
class Provenance:
    """Where an evaluation comes from.

    model: a name in models/ or the path of a deploy net, None for predictions of other programs.
    weights, weights_sha256: the caffemodel. predictions: the folder of the label maps.
    list: the list of images. row: the paper's row it is compared with, such as horse.lg_lstm.
    finished: UTC time, ISO 8601. warnings: sentences that a reader of the numbers must know.
    """

    model: str | None
    weights: str | None
    weights_sha256: str | None
    predictions: str
    list: str
    labels: str
    row: str | None
    finished: str
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class StoredEvaluation:
    """An evaluation.json that was read back: its provenance and metric key → percent."""

    path: Path
    provenance: Provenance
    images: int
    percents: dict[str, float | None]


def as_dict(provenance: Provenance, evaluation: Evaluation, cells: list[Cell]) -> dict[str, object]:
    """Everything about one evaluation, ready for JSON."""
    return {
        "format": FORMAT,
        **asdict(provenance),
        "images": len(evaluation.images),
        "table": [cell.as_dict() for cell in cells],
        "metrics": evaluation.metrics.as_dict(),
        "layers": {name: metrics.as_dict() for name, metrics in evaluation.layers.items()},
        "per_image": [
            {
                "name": image.image.name,
                "mean_iou": image.mean_iou,
                "pixel_accuracy": image.pixel_accuracy,
            }
            for image in evaluation.images
        ],
    }


def write(path: Path, contents: dict[str, object]) -> None:
    write_text(path, json.dumps(contents, indent=1, allow_nan=False) + "\n")


def read(path: Path) -> StoredEvaluation:
    """Read an evaluation.json; raise InputError for another file, and for a newer format."""
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        if contents["format"] != FORMAT:
            raise ValueError(f"format {contents['format']} instead of {FORMAT}")
        fields = {key: contents[key] for key in Provenance.__dataclass_fields__}
        percents = _percents(contents["metrics"])
        return StoredEvaluation(path, Provenance(**fields), contents["images"], percents)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not a result of `lglstm evaluate` ({error}); evaluate again"
        ) from error


def _percents(metrics: dict) -> dict[str, float | None]:
    """Metric key → percent, "iou.head" for the classes."""
    percents: dict[str, float | None] = {}
    for key, value in metrics.items():
        if isinstance(value, dict):
            percents |= {f"{key}.{name}": _percent(number) for name, number in value.items()}
        elif key not in ("pixels", "classes", "confusion_matrix"):
            percents[key] = _percent(value)
    return percents


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * float(value)
