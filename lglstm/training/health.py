"""Is the run still sound: finite numbers in the net, and room on the disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.pycaffe import Blob, CaffeNet


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
        return "lower base_lr (--set base_lr=…) or limit the gradients (--set clip_gradients=…)"


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
