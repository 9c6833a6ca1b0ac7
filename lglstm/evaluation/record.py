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
from lglstm.evaluation.paper import Cell
from lglstm.evaluation.scoring import Evaluation

FILE = "evaluation.json"
FORMAT = 1


@dataclass(frozen=True)
class Origin:
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
class Record:
    """An evaluation.json that was read back: its origin and metric key → percent."""

    path: Path
    origin: Origin
    images: int
    percents: dict[str, float | None]


def as_dict(origin: Origin, evaluation: Evaluation, cells: list[Cell]) -> dict[str, object]:
    """Everything about one evaluation, ready for JSON."""
    return {
        "format": FORMAT,
        **asdict(origin),
        "images": len(evaluation.images),
        "table": [cell.as_dict() for cell in cells],
        "metrics": evaluation.metrics.as_dict(),
        "layers": {name: metrics.as_dict() for name, metrics in evaluation.layers.items()},
        "per_image": [
            {
                "name": image.sample.name,
                "mean_iou": image.mean_iou,
                "pixel_accuracy": image.pixel_accuracy,
            }
            for image in evaluation.images
        ],
    }


def write(path: Path, contents: dict[str, object]) -> None:
    write_text(path, json.dumps(contents, indent=1, allow_nan=False) + "\n")


def read(path: Path) -> Record:
    """Read an evaluation.json; raise InputError when it is none, or of a newer format."""
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        if contents["format"] != FORMAT:
            raise ValueError(f"format {contents['format']} instead of {FORMAT}")
        origin = Origin(**{key: contents[key] for key in Origin.__dataclass_fields__})
        return Record(path, origin, contents["images"], _percents(contents["metrics"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not a result of `lglstm evaluate` ({error}); evaluate again"
        ) from error


def _percents(metrics: dict) -> dict[str, float | None]:
    """Metric key → percent, "iou.head" for the classes."""
    percents = {}
    for key, value in metrics.items():
        if isinstance(value, dict):
            percents |= {f"{key}.{name}": _percent(number) for name, number in value.items()}
        elif key not in ("pixels", "classes", "confusion_matrix"):
            percents[key] = _percent(value)
    return percents


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * float(value)
