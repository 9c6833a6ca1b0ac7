"""Files of weights: Caffe's own, NumPy's, safetensors and PyTorch's; read, checked and written.

All are read into the layers that a caffemodel would hold (`StoredLayer`), so that any of them can
become any other. Two ways of naming are in use:

- Caffe's, `conv1/0`: layer and number of the blob. npz, safetensors and HDF5 (there below `data`).
- the modules', `conv1.weight`: a PyTorch file. It also holds the description of its nets, which is
  what `lglstm.convert.torch.load` builds them from. A weight that layers share is stored once.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lglstm.caffe_files import Net, read_caffemodel, write_caffemodel
from lglstm.caffe_files.caffemodel import StoredLayer
from lglstm.caffe_files.schema import LayerParameter
from lglstm.common.errors import InputError

Stored = list[StoredLayer]
PathLike = str | os.PathLike[str]


class Found(NamedTuple):
    """The layers of a file, and whether it names them as PyTorch modules do."""

    stored: Stored
    by_modules: bool


def read_weights(path: PathLike, nets: Sequence[Net] = ()) -> Found:
    """Read a file of weights, its format by its suffix, as float32.

    nets: the model's nets; needed for PyTorch files, whose names only these can turn into layers.
    Nothing in a file is ever run: no pickles but PyTorch's of plain tensors. Raises InputError.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: is not a file; give a file of weights")
    format_ = format_of(path)
    try:
        if format_ == "caffemodel":
            return Found(read_caffemodel(path), by_modules=False)
        if format_ == "hdf5":
            return Found(_layers_of(path, _read_hdf5(path)), by_modules=False)
        if format_ == "npz":
            return Found(_layers_of(path, _read_npz(path)), by_modules=False)
        named = _read_safetensors(path) if format_ == "safetensors" else _read_pth(path)
    except _Unreadable as error:
        raise InputError(f"{path}: is no whole {format_} file ({error}); make it again") from None
    if any("/" in name and name.rsplit("/", 1)[1].isdigit() for name in named):
        return Found(_layers_of(path, named), by_modules=False)
    return Found(_layers_of_modules(path, named, nets), by_modules=True)


def format_of(path: PathLike) -> str:
    """The format that a weights file's name says: caffemodel, hdf5, npz, safetensors or pth."""
    suffix = Path(path).suffix.lower()
    known = {".h5": "hdf5", ".hdf5": "hdf5", ".pt": "pth"}
    format_ = known.get(suffix, suffix[1:])
    if format_ not in ("caffemodel", "hdf5", "npz", "safetensors", "pth"):
        raise InputError(
            f"{path}: the suffix {suffix or 'is missing and'} says no format of weights; known are "
            ".caffemodel, .h5, .npz, .safetensors and .pth"
        )
    return format_


class _Unreadable(Exception):
    """What a library said about a file."""


def _checked(read: Callable) -> Callable:
    """Turn whatever the libraries raise on a damaged file into _Unreadable."""

    def checked(path: Path) -> dict[str, np.ndarray]:
        try:
            return {name: _float32(name, array) for name, array in read(path).items()}
        except InputError:
            raise
        except ImportError as error:
            raise InputError(
                f"{path}: {error.name} is needed for it; install it with pip install {error.name}"
            ) from None
        except MemoryError:
            raise _Unreadable("it claims more numbers than fit into memory") from None
        except Exception as error:
            raise _Unreadable(" ".join(str(error).split())[:200] or type(error).__name__) from None

    return checked


def _float32(name: str, array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind != "f":
        raise _Unreadable(f"{name} holds {array.dtype} instead of floating-point numbers")
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


@_checked
def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > 64 << 30:
            raise _Unreadable("it unpacks to more than 64 GiB")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@_checked
def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    import h5py

    named = {}
    with h5py.File(path, "r") as file:
        if "data" not in file:
            raise _Unreadable("it has no group data, as Caffe's have")
        for layer, group in file["data"].items():
            # Soft and external links could lead into other files; Caffe writes none.
            for index in group:
                if isinstance(group.get(index, getlink=True), h5py.HardLink):
                    named[f"{layer}/{index}"] = group[index][()]
    return named


@_checked
def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path)


@_checked
def _read_pth(path: Path) -> dict[str, np.ndarray]:
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True)
    content = content.get("state_dict", content)
    return {name: tensor.detach().numpy() for name, tensor in content.items()}


def _layers_of(path: Path, named: dict[str, np.ndarray]) -> Stored:
    """From Caffe's names, in the file's order; blobs sorted by their number."""
    layers: dict[str, dict[int, np.ndarray]] = {}
    for name, array in named.items():
        match = re.fullmatch(r"(.+)/(\d{1,2})", name, re.S)
        if match is None:
            raise InputError(
                f"{path}: holds {name}, which is no <layer>/<number of the blob>; give a file that "
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


def _layers_of_modules(path: Path, named: dict[str, np.ndarray], nets: Sequence[Net]) -> Stored:
    """From the modules' names, by the layers of the model's nets."""
    if not nets:
        raise InputError(f"{path}: a PyTorch file needs the model that it belongs to")
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
                f"{path}: {layer.name}.{shared[0][0]} differs from {shared[0][1]}, but the model "
                "shares them; keep them shared while training"
            )
        blobs = [named[key] for key in layer.blobs.values()]
        stored[layer.name] = StoredLayer(layer.name, layer.type, blobs)
    if not stored:
        raise InputError(
            f"{path}: none of its tensors ({', '.join(list(named)[:3])}, …) belongs to "
            f"{nets[0].path}; give the model that it was made from"
        )
    return list(stored.values())


# --- Writing --------------------------------------------------------------------------------------


class Content(NamedTuple):
    """What a file of weights is written from.

    stored: every layer with blobs. nets: the model's nets by phase, "deploy" and perhaps "train".
    metadata: text to keep with the weights where the format can.
    """

    stored: Stored
    nets: dict[str, Net]
    metadata: dict[str, str]


def write_npz(path: Path, content: Content) -> None:
    np.savez(path, **_caffe_names(content.stored))


def write_safetensors(path: Path, content: Content) -> None:
    from safetensors.numpy import save_file

    named = {name: np.ascontiguousarray(a) for name, a in _caffe_names(content.stored).items()}
    save_file(named, path, content.metadata)


def write_hdf5(path: Path, content: Content) -> None:
    """Caffe's own HDF5 weights."""
    import h5py

    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for name, array in _caffe_names(content.stored).items():
            layer, index = name.rsplit("/", 1)
            if "/" in layer:
                raise InputError(
                    f'layer "{layer}" has a slash in its name, which Caffe cannot read back from '
                    "HDF5; convert to npz or safetensors"
                )
            data.require_group(layer).create_dataset(index, data=array)


def write_caffe(path: Path, content: Content) -> None:
    """A caffemodel; layers have the parameters that the model's nets give them."""
    messages: dict[str, LayerParameter] = {}
    for net in content.nets.values():
        messages |= {layer.name: layer.message for layer in net.layers}
    layers = [
        (messages.get(x.name) or LayerParameter(name=x.name, type=x.type), x.blobs)
        for x in content.stored
    ]
    write_caffemodel(path, content.nets["deploy"].name, layers)


def write_torch_safetensors(path: Path, content: Content) -> None:
    from safetensors.numpy import save_file

    named = {key: np.ascontiguousarray(a) for key, a in _module_names(content).items()}
    save_file(named, path, content.metadata | {"nets": _descriptions(content)})


def write_pth(path: Path, content: Content) -> None:
    import torch

    tensors = {key: torch.from_numpy(a.copy()) for key, a in _module_names(content).items()}
    torch.save({"state_dict": tensors, "nets": _descriptions(content), **content.metadata}, path)


def _caffe_names(stored: Stored) -> dict[str, np.ndarray]:
    return {f"{x.name}/{index}": blob for x in stored for index, blob in enumerate(x.blobs)}


def _module_names(content: Content) -> dict[str, np.ndarray]:
    from lglstm.caffe_files import weights_for

    named: dict[str, np.ndarray] = {}
    for net in content.nets.values():
        named |= weights_for(net, content.stored, "the weights")
    return named


def _descriptions(content: Content) -> str:
    return json.dumps({phase: net.description() for phase, net in content.nets.items()})
