"""Which label set a net and its label maps have, and what to do when nobody says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lglstm.common.errors import InputError
from lglstm.common.labels import LABEL_SETS, LabelSet, label_set
from lglstm.common.models import ModelFiles

if TYPE_CHECKING:
    from lglstm.evaluation.predictor import Predictor

BY_CLASSES = {5: "horse", 18: "atr", 56: "fashionista56"}
"""The label set of a net that nobody described, by its number of classes."""


def choose_labels(
    asked: str | None, model: ModelFiles | None, num_classes: int | None, near: Path | None
) -> LabelSet:
    """The label set: asked for, the model's, the data set's `dataset.json`, by number of classes.

    near: a list of images, beside which data preparation leaves its dataset.json.
    Raises InputError when none of these says it.
    """
    for name in (
        asked,
        model and generated_with(model, "label_set"),
        near and _label_set_beside(near),
        num_classes and BY_CLASSES.get(num_classes),
    ):
        if name:
            return label_set(name)
    raise InputError(
        f"the meaning of the labels is not known; name them with --labels {'|'.join(LABEL_SETS)}"
    )


def check_classes(predictor: Predictor, labels: LabelSet) -> None:
    """Refuse a label set with another number of classes than the net."""
    if predictor.num_classes != labels.num_classes:
        raise InputError(
            f"{predictor.deploy}: scores {predictor.num_classes} classes, but the label set "
            f"{labels.name} has {labels.num_classes}; choose the model's own with --labels"
        )


def generated_with(model: ModelFiles, option: str) -> str | None:
    """The value of a generator option for a model of this project; None for other nets."""
    from lglstm.prototxt_gen.registry import MODELS

    known = MODELS.get(model.name) if model.is_generated else None
    return getattr(known.options, option) if known else None


def _label_set_beside(list_path: Path) -> str | None:
    try:
        return json.loads((list_path.parent / "dataset.json").read_text(encoding="utf-8"))[
            "label_set"
        ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
