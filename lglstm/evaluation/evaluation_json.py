"""evaluation.json: what was measured, on what and with what, so that tables can be made of it.

Metrics are ratios as evaluation/metrics.py gives them; the rows of `table` are in percent, like the
paper's.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lglstm.common.errors import InputError
from lglstm.common.files import write_text
from lglstm.common.labels import LabelSet, label_set
from lglstm.common.rules import is_list, is_number
from lglstm.common.text_files import read_text
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
    labels: LabelSet
    images: int
    percents: dict[str, float | None]


def as_dict(provenance: Provenance, evaluation: Evaluation, cells: list[Cell]) -> dict[str, object]:
    """Everything about one evaluation, ready for JSON."""
    return {
        "format": FORMAT,
        **asdict(provenance),
        "label_set": evaluation.labels.to_json(),
        "images": len(evaluation.images),
        "table": [cell.as_dict() for cell in cells],
        "metrics": evaluation.metrics.as_dict(),
        "class_offsets": [list(own) for own in evaluation.class_offsets],
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
    """Read an evaluation.json; raise InputError for any other file, and for a newer format."""
    try:
        contents = json.loads(read_text(path))
        if contents["format"] != FORMAT:
            raise ValueError(f"format {contents['format']!s:.20} instead of {FORMAT}")
        fields = {key: _checked(key, contents[key]) for key in Provenance.__dataclass_fields__}
        images = contents["images"]
        if type(images) is not int:
            raise ValueError("images is not a whole number")
        percents = _percents(contents["metrics"])
        return StoredEvaluation(
            path, Provenance(**fields), _labels(path, contents), images, percents
        )
    except KeyError as error:
        raise _not_a_result(path, f"it has no {error}") from error
    except OSError as error:
        raise _not_a_result(path, error.strerror or str(error)) from error
    except RecursionError as error:
        raise _not_a_result(path, "it is nested too deep") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise _not_a_result(path, str(error)[:200]) from error


def _not_a_result(path: Path, reason: str) -> InputError:
    return InputError(f"{path}: not a result of `lglstm evaluate` ({reason}); evaluate again")


def _checked(key: str, value: Any) -> Any:
    """A field of `Provenance`, if it is of its type."""
    if key == "warnings":
        if not is_list(value, lambda sentence: isinstance(sentence, str)):
            raise ValueError("warnings is not a list of sentences")
        return tuple(value)
    if key == "finished":
        datetime.datetime.fromisoformat(value)
    optional = key in ("model", "weights", "weights_sha256", "row")
    if not isinstance(value, str) and not (optional and value is None):
        raise ValueError(f"{key} is not text")
    return value


def _labels(path: Path, contents: dict) -> LabelSet:
    """The label set; an older version wrote only the name of a ready one."""
    if "label_set" in contents:
        return LabelSet.from_json(contents["label_set"], str(path))
    return label_set(contents["labels"])


def _percents(metrics: dict) -> dict[str, float | None]:
    """Metric key → percent, "iou.head" for the classes."""
    percents: dict[str, float | None] = {}
    for key, value in metrics.items():
        if isinstance(value, dict):
            percents |= {f"{key}.{name}": _percent(key, part) for name, part in value.items()}
        elif key not in ("pixels", "classes", "confusion_matrix"):
            percents[key] = _percent(key, value)
    return percents


def _percent(key: str, value: Any) -> float | None:
    if value is None:
        return None
    if not is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{key} is not a number from 0 to 1")
    return 100 * float(value)
