"""Reads what is converted: the nets of a model, and its weights in any format.

Weights are read into the layers that a caffemodel would hold (`StoredLayer`), so that any format
can become any other. Two ways of naming are in use:

- Caffe's, `conv1/0`: layer and number of the blob. npz, safetensors and HDF5 (there below `data`).
- the modules', `conv1.weight`: a PyTorch file. It also holds the description of its nets, which is
  what `lglstm.convert.torch.load` builds them from. A weight that layers share is stored once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lglstm.caffe_files import Net, read_caffemodel, read_net, weights_for, wire
from lglstm.caffe_files.caffemodel import StoredLayer
from lglstm.caffe_files.layer_types import LAYER_TYPES
from lglstm.caffe_files.net import Weights
from lglstm.common.errors import InputError
from lglstm.common.hashing import sha256_of
from lglstm.convert.containers import Arrays, read_arrays, without_wrappers
from lglstm.convert.description import Description, read_description

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class SourceModel:
    """A model as it was read.

    nets: "deploy", and "train" if there is one whose weights the file holds. stored: every layer of
    the weights file. weights: those of the deploy net, by key. from_modules: whether the file names
    weights as PyTorch modules do, and comes from PyTorch, not from Caffe. description: that of the
    weights file, if it holds one. unrounded: the model with the weights of the file, if these are
    rounded to half precision.
    """

    deploy_path: Path
    weights_path: Path
    deploy_sha256: str
    weights_sha256: str
    nets: dict[str, Net]
    stored: list[StoredLayer]
    weights: Weights
    from_modules: bool
    description: Description | None
    unrounded: SourceModel | None = None

    @property
    def deploy(self) -> Net:
        return self.nets["deploy"]

    def rounded(self) -> SourceModel:
        """The same with weights that half precision holds exactly, float32 as before.

        Layers that no net has, such as the data layer's place in the data, stay as they are. Raises
        InputError for a weight beyond the range of half precision.
        """
        computed = {layer.name for net in self.nets.values() for layer in net.layers}
        stored = [
            dataclasses.replace(x, blobs=[_rounded(blob, x.name, self) for blob in x.blobs])
            if x.name in computed
            else x
            for x in self.stored
        ]
        weights = weights_for(self.deploy, stored, str(self.weights_path))
        return dataclasses.replace(self, stored=stored, weights=weights, unrounded=self)


def _rounded(blob: np.ndarray, layer: str, model: SourceModel) -> np.ndarray:
    with np.errstate(over="ignore"):
        half = blob.astype(np.float16)
    if not np.isfinite(half).all():
        raise InputError(
            f'{model.weights_path}: layer "{layer}" has weights up to {np.abs(blob).max():.3g}, '
            f"but half precision ends at {np.finfo(np.float16).max:.5g}; leave out --precision"
        )
    return half.astype(np.float32)


def read_deploy(path: PathLike, supported: Container[str] = LAYER_TYPES) -> Net:
    """The net that is to be run, in Caffe's phase TEST and in the stage that DIGITS names so."""
    return read_net(path, supported=supported, stages=("deploy",))


def read_model(
    deploy_path: Path, weights_path: Path, supported: Container[str] = LAYER_TYPES
) -> SourceModel:
    """Read nets and weights; every check of the input is made here, before anything is written.

    supported: the layer types that can be written. Raises InputError.
    """
    nets = _nets_of(deploy_path, supported)
    deploy = nets["deploy"]
    file = read_weights(weights_path, tuple(nets.values())[::-1])
    needed = {layer.name for layer in nets.get("train", deploy).layers if layer.blobs}
    if not needed <= {layer.name for layer in file.stored}:  # without what only training has
        nets.pop("train", None)
    weights = weights_for(deploy, file.stored, str(weights_path))
    for layer in file.stored:
        if not all(np.isfinite(blob).all() for blob in layer.blobs):
            raise InputError(
                f'{weights_path}: layer "{layer.name}" holds NaN or infinity, so its training '
                "diverged; use an earlier snapshot"
            )
    return SourceModel(
        deploy_path=deploy_path,
        weights_path=weights_path,
        deploy_sha256=sha256_of(deploy_path),
        weights_sha256=sha256_of(weights_path),
        nets=nets,
        stored=file.stored,
        weights=weights,
        from_modules=file.by_modules,
        description=read_description(weights_path),
    )


def _nets_of(deploy_path: Path, supported: Container[str] = LAYER_TYPES) -> dict[str, Net]:
    """The deploy net, and the train net beside a deploy.prototxt."""
    nets = {"deploy": read_deploy(deploy_path, supported)}
    train = deploy_path.with_name("train.prototxt")
    if deploy_path.name == "deploy.prototxt" and train.is_file():
        # Only PyTorch takes it; other people's may have data layers that nobody can convert.
        with contextlib.suppress(InputError):
            nets["train"] = read_net(train, "TRAIN")
    return nets


# --- Weights in any format ------------------------------------------------------------------------


class WeightsFile(NamedTuple):
    """The layers of a file, and whether it names them as PyTorch modules do."""

    stored: list[StoredLayer]
    by_modules: bool


def read_weights(path: PathLike, nets: Sequence[Net] = ()) -> WeightsFile:
    """Read a file of weights, its format by its suffix, as float32.

    nets: the model's nets; needed for PyTorch files, whose names only these can turn into layers.
    Nothing in a file is ever run: no pickles but PyTorch's of plain tensors. Raises InputError.
    """
    path = Path(path)
    wire.require_readable(path)
    format_ = format_of(path)
    if format_ == "caffemodel":
        needed = not nets or any(net.weights for net in nets)
        return WeightsFile(read_caffemodel(path, empty=not needed), by_modules=False)
    # By layers: a file that Caffe wrote repeats what these share.
    blobs = {x.name: [net.weights[k] for k in x.blobs.values()] for net in nets for x in net.layers}
    values = sum(math.prod(shape) for shapes in blobs.values() for shape in shapes)
    named = read_arrays(path, format_, values)
    by_caffe = format_ in ("hdf5", "npz") or any(re.search(r"/\d+$", name) for name in named)
    if by_caffe:
        return WeightsFile(_layers_of(path, named), by_modules=False)
    return WeightsFile(_layers_of_modules(path, named, nets), by_modules=True)


def read_weights_for(deploy_path: Path, weights_path: Path) -> list[StoredLayer]:
    """The layers of a weights file, in any format, for a net that Caffe runs.

    The net need not be one that can be converted, unless the file names weights as PyTorch does.
    """
    nets: dict[str, Net] = {}
    if format_of(weights_path) != "caffemodel":
        with contextlib.suppress(InputError):
            nets = _nets_of(deploy_path)
    return read_weights(weights_path, tuple(nets.values())[::-1]).stored


def format_of(path: PathLike) -> str:
    """The format that a weights file's name says: caffemodel, hdf5, npz, safetensors or pth."""
    suffix = Path(path).suffix.lower()
    known = {".h5": "hdf5", ".hdf5": "hdf5", ".pt": "pth"}
    format_ = known.get(suffix, suffix[1:])
    if format_ not in ("caffemodel", "hdf5", "npz", "safetensors", "pth"):
        raise InputError(
            f"{path}: {f'the suffix {suffix}' if suffix else 'a name without a suffix'} does not "
            "say which format of weights this is; give a file that ends in .caffemodel, .h5, .npz, "
            ".safetensors or .pth"
        )
    return format_


def _layers_of(path: Path, named: Arrays) -> list[StoredLayer]:
    """From Caffe's names, in the file's order; blobs sorted by their number."""
    layers: dict[str, dict[int, np.ndarray]] = {}
    for name, array in named.items():
        match = re.fullmatch(r"(.+)/(\d{1,2})", name, re.S)
        if match is None:
            raise InputError(
                f"{path}: holds {name}, expected <layer>/<number of the blob>; give a file that "
                "`lglstm convert` or Caffe made"
            )
        layers.setdefault(match[1], {})[int(match[2])] = array
    for layer, blobs in layers.items():
        if sorted(blobs) != list(range(len(blobs))):
            raise InputError(f"{path}: lacks a blob of layer {layer}; make the file again")
    return [
        StoredLayer(layer, "", [blobs[i] for i in range(len(blobs))])
        for layer, blobs in layers.items()
    ]


def _layers_of_modules(path: Path, named: Arrays, nets: Sequence[Net]) -> list[StoredLayer]:
    """From the modules' names, by the layers of the model's nets."""
    if not nets:
        raise InputError(
            f"{path}: a PyTorch file can be read only with its model; give a model whose nets can "
            "be converted"
        )
    keys = frozenset(key for net in nets for key in net.weights)
    named = without_wrappers(named, keys)
    stored: dict[str, StoredLayer] = {}
    for layer in (layer for net in nets for layer in net.layers):
        if not layer.blobs or not all(key in named for key in layer.blobs.values()):
            continue
        shared = [
            (name, key)
            for name, key in layer.blobs.items()
            if f"{layer.name}.{name}" in named
            and named[f"{layer.name}.{name}"].tobytes() != named[key].tobytes()
        ]
        if shared:
            raise InputError(
                f"{path}: {layer.name}.{shared[0][0]} differs from {shared[0][1]}, but in the "
                "model they are one weight; keep them shared while training"
            )
        blobs = [named[key] for key in layer.blobs.values()]
        stored[layer.name] = StoredLayer(layer.name, layer.type, blobs)
    if not named and keys:
        raise InputError(f"{path}: holds no tensors; give the weights of {nets[0].path}")
    if not stored and keys:
        raise InputError(
            f"{path}: none of its tensors ({', '.join(list(named)[:3])}, …) belong to "
            f"{nets[0].path}; give the model that it was made from"
        )
    return list(stored.values())
