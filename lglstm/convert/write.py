"""Writes a model in another format."""

from __future__ import annotations

import importlib.metadata
import io
import json
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from google.protobuf.message import Message

from lglstm.caffe_files import Net, weights_for
from lglstm.caffe_files.caffemodel import StoredLayer, write_layers
from lglstm.caffe_files.layer_types import LAYER_TYPES
from lglstm.caffe_files.schema import LayerParameter
from lglstm.common.errors import InputError
from lglstm.common.paths import as_text
from lglstm.convert.description import KEY, LABELS, NOT_STATED, Description, parsing_net
from lglstm.convert.options import PRECISIONS, ConvertOptions
from lglstm.convert.read import SourceModel


class Format(NamedTuple):
    """The suffixes of its files, the usual one first, and the Python packages that it needs.

    precisions: those of options.PRECISIONS that it can hold.
    """

    suffixes: tuple[str, ...]
    needs: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("float32",)


_WITH_HALVES = ("float32", "float16")

FORMATS = {
    "pytorch": Format((".safetensors", ".pth", ".pt"), ("torch", "safetensors"), _WITH_HALVES),
    "onnx": Format((".onnx",), ("onnx", "onnxruntime"), PRECISIONS),
    "caffemodel": Format((".caffemodel",)),
    "hdf5": Format((".caffemodel.h5", ".h5", ".hdf5")),
    "npz": Format((".npz",)),
    "safetensors": Format((".caffe.safetensors", ".safetensors"), ("safetensors",), _WITH_HALVES),
}
REFERENCE_SUFFIXES = (".reference.npz", ".npz")
"""Of a stored reference (`samples.Reference`), which is made from a model, too."""


def write_model(path: Path, model: SourceModel, options: ConvertOptions) -> None:
    """Write the model to `path` as options.format.

    Raises InputError if it cannot be, and OSError on a full disk. Libraries that say something
    else there, or crash (HDF5), write into memory, and the bytes are written here.
    """
    metadata = metadata_of(model, options)
    if options.format == "onnx":
        _write_onnx(path, model, options, metadata)
    elif options.format in _WITH_METADATA:
        _WITH_METADATA[options.format](path, model, metadata)
    else:
        _WRITERS[options.format](path, model)


def metadata_of(model: SourceModel, options: ConvertOptions) -> dict[str, str]:
    """What is kept with the weights in formats that can: the description of a parsing net."""
    description = describe(model, options)
    return {KEY: description.to_text()} if description else {}


def describe(model: SourceModel, options: ConvertOptions) -> Description | None:
    """What the result says of itself; None for a net that does not parse photos."""
    found = parsing_net(model.deploy)
    if found is None:
        return None
    size, classes = found
    before = model.description
    return Description(
        model=model.deploy.name.removesuffix("_deploy"),
        label_set=options.labels_for(classes, before.label_set if before else None),
        input_size=size,
        source=as_text(model.weights_path.name),
        source_sha256=model.weights_sha256,
        outputs=(LABELS,) if options.labels else tuple(model.deploy.outputs),
        license=options.license or (before.license if before else NOT_STATED),
    )


def default_output(weights: Path, suffix: str) -> Path:
    """Beside the weights, with another suffix; never the weights themselves."""
    name = weights.name
    if not name:
        raise InputError(f"{weights}: is a folder; give the file of weights that is in it")
    for known in (".caffe.safetensors", ".caffemodel.h5", weights.suffix):
        name = name.removesuffix(known)
    output = weights.with_name(name + suffix)
    return weights.with_name(f"{name}.converted{suffix}") if output == weights else output


def supported_layers(name: str) -> Container[str]:
    """The layer types that can be written in a format."""
    if name == "onnx":
        from lglstm.convert.onnx_graph import SUPPORTED

        return SUPPORTED
    return LAYER_TYPES


def check_installed(name: str) -> None:
    """Raise InputError with the Python packages that the format needs and that are missing."""
    missing = [package for package in FORMATS[name].needs if not is_installed(package)]
    if missing:
        raise InputError(
            f"--to {name}: needs the Python package{'s' * (len(missing) > 1)} "
            f"{' and '.join(missing)}; install with pip install {' '.join(missing)}"
        )


def is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


# --- One function a format ------------------------------------------------------------------------


def _write_onnx(
    path: Path, model: SourceModel, options: ConvertOptions, metadata: dict[str, str]
) -> None:
    from lglstm.convert.onnx_graph import to_onnx

    graph = to_onnx(
        model.deploy,
        model.weights,
        any_size=options.any_size,
        preprocessing=options.preprocessing,
        labels=options.labels,
        metadata=metadata,
    )
    path.write_bytes(graph.SerializeToString())


def _write_pytorch(path: Path, model: SourceModel, metadata: dict[str, str]) -> None:
    nets = json.dumps({phase: net.description() for phase, net in model.nets.items()})
    weights: dict[str, np.ndarray] = {}
    for net in model.nets.values():
        weights |= weights_for(net, model.stored, "the weights")
    if model.unrounded:
        weights = {key: _as_half(array) for key, array in weights.items()}
    if path.suffix in (".pth", ".pt"):
        import torch

        tensors = {key: torch.from_numpy(array.copy()) for key, array in weights.items()}
        file = io.BytesIO()
        torch.save({"state_dict": tensors, "nets": nets, **metadata}, file)
        path.write_bytes(file.getbuffer())
    else:
        _save_safetensors(path, weights, metadata | {"nets": nets})


def _write_caffemodel(path: Path, model: SourceModel) -> None:
    write_for_caffe(path, model.stored, model.nets)


def write_for_caffe(path: Path, stored: Sequence[StoredLayer], nets: Mapping[str, Net]) -> None:
    """A caffemodel; layers have the parameters that the nets give them."""
    messages: dict[str, Message] = {}
    for net in nets.values():
        messages |= {layer.name: layer.message for layer in net.layers}
    layers = [
        (messages.get(x.name) or LayerParameter(name=x.name, type=x.type), x.blobs) for x in stored
    ]
    write_layers(path, nets["deploy"].name, layers)


def _write_hdf5(path: Path, model: SourceModel) -> None:
    """Caffe's own HDF5 weights."""
    import h5py

    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        data = file.create_group("data")
        for name, array in _caffe_names(model).items():
            layer, index = name.rsplit("/", 1)
            if "/" in layer:
                raise InputError(
                    f'layer "{layer}" has a slash in its name, which Caffe cannot read back from '
                    "HDF5; convert to npz or safetensors"
                )
            data.require_group(layer).create_dataset(index, data=array)
        file.flush()
        image = file.id.get_file_image()
    path.write_bytes(image)


def _write_npz(path: Path, model: SourceModel) -> None:
    np.savez(path, **_caffe_names(model))  # type: ignore[arg-type]


def _write_safetensors(path: Path, model: SourceModel, metadata: dict[str, str]) -> None:
    arrays = _caffe_names(model)
    if model.unrounded:
        arrays = {name: _as_half(array) for name, array in arrays.items()}
    _save_safetensors(path, arrays, metadata)


_WRITERS: dict[str, Callable[[Path, SourceModel], None]] = {
    "caffemodel": _write_caffemodel,
    "hdf5": _write_hdf5,
    "npz": _write_npz,
}
_WITH_METADATA: dict[str, Callable[[Path, SourceModel, dict[str, str]], None]] = {
    "pytorch": _write_pytorch,
    "safetensors": _write_safetensors,
}


def _caffe_names(model: SourceModel) -> dict[str, np.ndarray]:
    return {f"{x.name}/{index}": blob for x in model.stored for index, blob in enumerate(x.blobs)}


def _as_half(array: np.ndarray) -> np.ndarray:
    """The array in half precision if nothing is lost; see `SourceModel.rounded`."""
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if np.array_equal(half, array) else array


def _save_safetensors(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    from safetensors.numpy import save

    path.write_bytes(save({k: np.ascontiguousarray(a) for k, a in arrays.items()}, metadata))
