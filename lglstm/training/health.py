"""Is the run still sound: finite numbers in the net, a telling loss, room on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.pycaffe import Blob, CaffeNet, Message
from lglstm.training.log import TOTAL

# Iterations that a loss may be out of bounds before the run counts as lost: bad initial weights can
# put it there, too, but are soon mended.
PATIENCE = 50
# Two scores that are farther apart give a probability of 0 in float32, whose logarithm Caffe cuts
# at this height: each wrong answer costs as much, however wrong, up to rounding.
CEILING = 87.3
# Below this (per labeled pixel), a net may be as certain as it likes.
HIGH_LOSS = 1.0
# The part of the positions at which the scores are that far apart.
NEARLY_ALL = 0.99
POSITIONS = 4096
# By how much other losses, which have no ceiling, may grow.
GROWTH = 1e4
LOWER = "lower base_lr (--set base_lr=…) or limit the gradients (--set clip_gradients=…)"


@dataclass(frozen=True)
class Culprit:
    """The first thing in net order that is not finite; `kind` is data, weights or activation."""

    layer: str
    kind: str
    blob: str

    def __str__(self) -> str:
        what = {
            "data": f"the data from layer '{self.layer}' (blob '{self.blob}')",
            "weights": f"the weights of layer '{self.layer}' ({self.blob})",
            "activation": f"the activation of layer '{self.layer}' (blob '{self.blob}')",
        }
        return what[self.kind]

    @property
    def remedy(self) -> str:
        if self.kind == "data":
            return "look for a broken input there"
        return LOWER


def first_not_finite(net: CaffeNet) -> Culprit | None:
    """Search a pycaffe net in its order: of each layer first the weights, then the tops.

    A blob that a later layer changes in place (ReLU, dropout) counts for the layer that made it.
    """
    for index, name in enumerate(net._layer_names):
        for number, blob in enumerate(net.layers[index].blobs):
            if not _finite(blob):
                return Culprit(name, "weights", f"parameter {number}")
        kind = "activation" if net.bottom_names[name] else "data"
        for top in net.top_names[name]:
            if not _finite(net.blobs[top]):
                return Culprit(name, kind, top)
    return None


def weights_finite(net: CaffeNet) -> bool:
    return all(_finite(blob) for layer in net.layers for blob in layer.blobs)


def _finite(blob: Blob) -> bool:
    # The sum of finite float32 numbers is finite in float64, and needs no array of flags.
    with np.errstate(invalid="ignore"):
        return bool(np.isfinite(np.sum(blob.data, dtype=np.float64)))


class LossWatch:
    """Notices a loss that is finite, but lost: at Caffe's ceiling, or beyond all measure.

    `since` is the first iteration of those without interruption at which it was, None if it was
    not at the last one; `what` says what was found. messages: NetParameters, which say along which
    axis a layer's classes lie.
    """

    def __init__(self, net: CaffeNet, messages: Iterable[Message] = ()):
        self.net = net
        self.since: int | None = None
        self.what = ""
        self._first: float | None = None
        self._axes = _class_axes(messages)
        self._watched = [
            (name, net.top_names[name][0], net.bottom_names[name][0], SATURATED[layer.type])
            for name, layer in zip(net._layer_names, net.layers, strict=True)
            if layer.type in SATURATED
        ]

    def look(self, iteration: int, losses: Mapping[str, float]) -> bool:
        """Judge the losses of an iteration; True when they have been lost for PATIENCE of them."""
        self._first = max(abs(losses[TOTAL]), 1.0) if self._first is None else self._first
        self.what = self._saturated(losses) or self._exploded(losses[TOTAL])
        if not self.what:
            self.since = None
        elif self.since is None:
            self.since = iteration
        return self.since is not None and iteration - self.since + 1 >= PATIENCE

    def _saturated(self, losses: Mapping[str, float]) -> str:
        for name, top, bottom, saturated in self._watched:
            if losses.get(top, 0.0) < HIGH_LOSS:
                continue
            scores = np.moveaxis(self.net.blobs[bottom].data, self._axes.get(name, 1), 1)
            if np.mean(saturated(_best_two(scores))) >= NEARLY_ALL:
                return (
                    f"layer '{name}' has a loss of {losses[top]:.4g}, with scores so far apart "
                    "that it is at Caffe's ceiling wherever they are wrong, and does not say how "
                    "wrong they are"
                )
        return ""

    def _exploded(self, total: float) -> str:
        assert self._first is not None
        if abs(total) <= GROWTH * self._first:
            return ""
        return f"the loss is {total:.4g}, more than {GROWTH:,.0f} times what the run began with"


def _best_two(scores: np.ndarray) -> np.ndarray:
    """The second highest and the highest score at up to about POSITIONS positions, (2, n).

    scores: (B, K, ...), K classes; n is 0 when there is only one.
    """
    if scores.ndim < 2 or scores.shape[1] < 2:
        return np.zeros((2, 0))
    flat = scores.reshape(*scores.shape[:2], -1)
    step = max(1, flat.shape[0] * flat.shape[2] // POSITIONS)
    some = np.moveaxis(flat[:, :, ::step], 1, 0).reshape(scores.shape[1], -1)
    return np.partition(some, -2, axis=0)[-2:].astype(np.float64)


def _far_apart(best: np.ndarray) -> np.ndarray:
    return np.subtract(best[1], best[0]) > CEILING


def _certain(best: np.ndarray) -> np.ndarray:
    return best[1] == 1


SATURATED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "SoftmaxWithLoss": _far_apart,
    "InfogainLoss": _far_apart,
    "MultinomialLogisticLoss": _certain,
}
"""How to tell, from the two best scores or probabilities, that a loss is at its ceiling."""

LABELED = {*SATURATED, "Accuracy"}
"""Layers that look up the score of a label."""


def watch_labels(net: CaffeNet, messages: Sequence[Message]) -> None:
    """Let a net refuse labels for which it has no score; Caffe reads beyond the scores for them.

    messages: NetParameters, which say what losses and accuracies ignore. From now on a forward pass
    raises InputError where Caffe would go wrong.
    """
    axes = _class_axes(messages)
    ignored: dict[str, set[int]] = {}
    for layer in (layer for message in messages for layer in message.layer):
        if layer.type in LABELED:
            parameters = layer.accuracy_param if layer.type == "Accuracy" else layer.loss_param
            own = ignored.setdefault(layer.name, set())
            own |= {parameters.ignore_label} if parameters.HasField("ignore_label") else set()

    def look(index: int) -> None:
        name = net._layer_names[index]
        if name in ignored and len(net.bottom_names[name]) >= 2:
            scores, labels = (net.blobs[bottom] for bottom in net.bottom_names[name][:2])
            classes = scores.shape[axes.get(name, 1)]
            _require_scored(name, labels.data, classes, ignored[name])

    net.before_forward(look)


def _class_axes(messages: Iterable[Message]) -> dict[str, int]:
    """The axis of a layer's scores along which the classes lie, by layer, where it is an option."""
    parameters = {
        "SoftmaxWithLoss": "softmax_param",
        "InfogainLoss": "infogain_loss_param",
        "Accuracy": "accuracy_param",
    }
    return {
        layer.name: getattr(layer, parameters[layer.type]).axis
        for message in messages
        for layer in message.layer
        if layer.type in parameters
    }


def _require_scored(name: str, labels: np.ndarray, classes: int, ignored: set[int]) -> None:
    odd = labels[(labels < 0) | (labels >= classes)]
    odd = odd[~np.isin(odd, list(ignored))]
    if odd.size:
        raise InputError(
            f"layer '{name}': has scores for classes 0 … {classes - 1}, but the label {odd[0]:g} "
            "comes from the data; correct the label maps, or if such pixels do not count, add "
            f"ignore_label: {odd[0]:g} to the layer"
        )


def require_space(folder: Path, snapshot_bytes: int) -> None:
    """Raise InputError unless the disk under `folder` can hold two snapshots."""
    needed, free = 2 * snapshot_bytes, shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: the disk has {_megabytes(free)} free, but two snapshots of this net need "
            f"{_megabytes(needed)}; free some space, or set another place with "
            "--set snapshot_prefix=FOLDER/NAME"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
