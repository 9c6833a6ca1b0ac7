"""Which label set a net and its label maps have, and what to do when nobody says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lglstm.common.errors import InputError
from lglstm.common.labels import (
    DATA_SET,
    LABEL_SETS,
    LabelSet,
    label_set,
    numbered,
    read_label_set,
)
from lglstm.common.models import ModelFiles

if TYPE_CHECKING:
    from lglstm.evaluation.predictor import Predictor

BY_CLASSES = {5: "horse", 18: "atr", 56: "fashionista56"}
"""The label set of a net that nobody described, by its number of classes."""


def choose_labels(
    asked: str | None, model: ModelFiles | None, num_classes: int | None, near: Path | None
) -> LabelSet:
    """The label set, as `known_labels` finds it; without any, the classes by their numbers.

    Raises InputError when not even the number of classes is known.
    """
    labels = known_labels(asked, model, num_classes, near)
    if labels is not None:
        return labels
    if num_classes is not None:
        return numbered(num_classes)
    raise InputError(
        "the meaning of the labels is not known; name them with --labels "
        f"{'|'.join(LABEL_SETS)} or --labels FILE.json"
    )


def known_labels(
    asked: str | None, model: ModelFiles | None, num_classes: int | None, near: Path | None
) -> LabelSet | None:
    """The label set: asked for, the model's, the data set's `dataset.json`, by number of classes.

    asked: the name of a ready set, or a JSON file. near: a list of images, beside which data
    preparation leaves its dataset.json. None when none of these says it; raises InputError for a
    file that is no label set.
    """
    if asked:
        return label_set(asked)
    for path in (model and model.labels, near and near.parent / DATA_SET):
        if path and path.is_file():
            return read_label_set(path)
    name = num_classes and BY_CLASSES.get(num_classes)
    return LABEL_SETS[name] if name else None


def labels_of(
    predictor: Predictor, asked: str | None, model: ModelFiles | None, near: Path | None = None
) -> LabelSet:
    """The label set of a net: asked for, or that of its own file, or as `choose_labels` finds it.

    Raises InputError for one with another number of classes than the net.
    """
    engine = predictor.engine
    labels = None if asked else engine.label_set
    labels = labels or choose_labels(asked, model, engine.num_classes, near)
    check_classes(predictor, labels)
    return labels


def check_classes(predictor: Predictor, labels: LabelSet) -> None:
    """Refuse a label set with another number of classes than the net."""
    engine = predictor.engine
    if engine.num_classes != labels.num_classes:
        raise InputError(
            f"{engine.files.deploy or engine.files.weights}: scores {engine.num_classes} classes, "
            f"but the label set {labels.name} has {labels.num_classes}; choose the model's own "
            "with --labels"
        )
