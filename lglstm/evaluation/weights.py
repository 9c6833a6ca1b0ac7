"""Weights into a net, checked: pycaffe skips what matches no name and aborts on a wrong shape.

`load(net, deploy, path)` compares names and shapes first, says in one sentence what does not fit,
and returns which layers got weights and which kept their initial values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lglstm.caffe_files.caffemodel import blobs_by_layer
from lglstm.common.errors import InputError
from lglstm.convert.read import read_weights_for

Shapes = Mapping[str, tuple[tuple[int, ...], ...]]
"""Layer name → shape of each of its blobs."""


@dataclass(frozen=True)
class Loaded:
    """What a weights file gave to a net.

    loaded: layers of the net that got their weights from the file.
    initial: layers of the net that the file does not hold and that keep their initial values.
    unused: layers of the file that the net does not have.
    """

    loaded: tuple[str, ...]
    initial: tuple[str, ...]
    unused: tuple[str, ...]


def load(net: Any, deploy: Path, path: Path, fixed: Iterable[str] = ()) -> Loaded:
    """Copy the weights of `path`, in any format that `lglstm convert` reads, into a pycaffe `net`.

    deploy: the prototxt that the net is from. fixed: layers whose values the net itself defines (a
    bilinear upsampling); it is no news when the file lacks them. Raises InputError when the file is
    damaged, when a layer has another shape than in the net, when it holds NaN or infinity, or when
    no layer matches by name.
    """
    wanted = {
        name: tuple(tuple(blob.shape) for blob in blobs) for name, blobs in net.params.items()
    }
    stored = blobs_by_layer(read_weights_for(deploy, path), str(path))
    shapes = {name: tuple(blob.shape for blob in blobs) for name, blobs in stored.items()}
    loaded = compare(wanted, shapes, str(path), fixed)
    for name in loaded.loaded:
        for blob, values in zip(net.params[name], stored[name], strict=True):
            if not np.isfinite(values).all():
                raise InputError(
                    f"{path}: layer {name} holds NaN or infinity, so its training diverged; "
                    "use an earlier snapshot"
                )
            blob.data[...] = values.reshape(blob.data.shape)
    return loaded


def compare(net: Shapes, weights: Shapes, path: str, fixed: Iterable[str] = ()) -> Loaded:
    """Say which layers match; raise InputError when shapes differ or no name is shared."""
    shared = [name for name in net if name in weights]
    wrong = [name for name in shared if not _same(net[name], weights[name])]
    if wrong:
        differences = "; ".join(
            f"{name} is {_text(weights[name])} there and {_text(net[name])} in the net"
            for name in wrong[:3]
        )
        more = f" (and {len(wrong) - 3} more layers)" if len(wrong) > 3 else ""
        raise InputError(
            f"{path} holds the weights of another model: {differences}{more}; "
            "give the weights that were trained with this model"
        )
    if not shared:
        raise InputError(
            f"{path}: none of its layers ({_first(weights)}) has the name of a layer of this net "
            f"({_first(net)}), so they are weights of another model, or layers were renamed; "
            "give the weights that were trained with this model"
        )
    known = set(fixed)
    return Loaded(
        loaded=tuple(shared),
        initial=tuple(name for name in net if name not in weights and name not in known),
        unused=tuple(name for name in weights if name not in net),
    )


def _same(net: tuple[tuple[int, ...], ...], weights: tuple[tuple[int, ...], ...]) -> bool:
    """Equal, but for leading ones: old files store every blob with four axes."""
    return [_trimmed(shape) for shape in net] == [_trimmed(shape) for shape in weights]


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    leading = next((k for k, length in enumerate(shape) if length != 1), len(shape))
    return shape[leading:]


def _text(shapes: tuple[tuple[int, ...], ...]) -> str:
    return " and ".join("×".join(map(str, shape)) for shape in shapes)


def _first(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
