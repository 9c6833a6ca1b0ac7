"""Signs that numbers or label maps are not what they seem, each as a sentence to warn with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lglstm.evaluation.metrics import Metrics
    from lglstm.evaluation.weights import Loaded

ONE_CLASS = 0.99
"""A share of all pixels that no single class has in predictions of a trained net."""


def untrained_layers(weights: str | Path, loaded: Loaded | None) -> str | None:
    """Which layers the weights file did not hold; None when it held all."""
    if loaded is None or not loaded.initial:
        return None
    return (
        f"{weights} does not hold the layers {_first(loaded.initial)}, which keep their random "
        "initial values: these are initial weights, or weights of another model"
    )


def one_class(names: Sequence[str], pixels: Sequence[int]) -> str | None:
    """Whether nearly everything was predicted as one class; `pixels` per class."""
    total = sum(pixels)
    largest = max(range(len(pixels)), key=pixels.__getitem__)
    if not total or pixels[largest] < ONE_CLASS * total:
        return None
    return (
        f"{pixels[largest] / total:.1%} of all pixels are predicted as {names[largest]}: the net "
        "is hardly trained, its training diverged, or these are weights of another model"
    )


def never_predicted(metrics: Metrics) -> str | None:
    """Which true classes were never predicted; the average precision is without them."""
    truth, predicted = metrics.matrix.sum(axis=1), metrics.matrix.sum(axis=0)
    never = [name for k, name in enumerate(metrics.names) if truth[k] and not predicted[k]]
    if not never:
        return None
    return (
        f"{len(never)} of the {len(metrics.names)} classes were never predicted ({_first(never)}): "
        "their precision is undefined, and the average precision is that of the other classes"
    )


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (" …" if len(names) > 6 else "")
