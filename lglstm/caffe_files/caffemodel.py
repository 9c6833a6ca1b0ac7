"""Reads and writes `.caffemodel` files, layer by layer, without Caffe.

The reader copies nothing but the numbers of the blobs, so a file of any size needs the memory of
its weights and no more. Shapes are checked against the count of numbers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lglstm.caffe_files import wire
from lglstm.caffe_files.layer_types import MAX_COUNT
from lglstm.caffe_files.schema import (
    V1_LAYER_TYPES,
    LayerParameter,
    NetParameter,
    field_numbers,
)
from lglstm.caffe_files.wire import Damaged
from lglstm.common.errors import InputError
from lglstm.common.files import atomic_path

Array = NDArray[np.float32]

# Caffe's own limits (blob.hpp), and generous ones where it has none.
_MAX_AXES = 32
_MAX_BLOBS = 64
_MAX_LAYERS = 100_000

_NET = field_numbers("NetParameter")
_LAYER = field_numbers("LayerParameter")
_V1_LAYER = field_numbers("V1LayerParameter") | {"v0": 1}
_PARAM_NAME = field_numbers("ParamSpec")["name"]
# raw_data is what NVIDIA's Caffe and OpenCV write, for numbers of other sizes, too.
_BLOB = field_numbers("Blob") | {"raw_data_type": 10, "raw_data": 12}
_SHAPE_DIM = field_numbers("BlobShape")["dim"]
_RAW_TYPES = {0: "<f8", 1: "<f4", 2: "<f2"}  # double, float, half
_LEGACY_AXES = ("num", "channels", "height", "width")


@dataclass
class StoredLayer:
    """One layer of a caffemodel.

    name; type: "" when the file does not say. blobs: its learnable ones, float32. shared_names: by
    blob, the name under which layers share it; "", or missing at the end, for a blob of its own.
    """

    name: str
    type: str
    blobs: list[Array] = field(default_factory=list)
    shared_names: list[str] = field(default_factory=list)


def read_caffemodel(path: str | os.PathLike[str], empty: bool = False) -> list[StoredLayer]:
    """Read all layers of a caffemodel in file order, those without blobs included.

    Both generations of the format are read (`layer` and the older `layers`), numbers stored as
    float, double or half; all come back as float32. empty: take a file without any blob, which is
    what a net without weights has. Raises InputError for a file that is not a
    caffemodel, is truncated, holds no weights, or whose blobs do not hold what their shapes say.
    """
    try:
        with wire.mapped(path) as view:
            layers = list(_layers(view))
    except Damaged as error:
        raise InputError(
            f"{path}: not a complete caffemodel ({error}); copy or download it again, or give the "
            "right file"
        ) from None
    if not empty and not any(layer.blobs for layer in layers):
        raise InputError(f"{path}: holds no weights; give a .caffemodel file that training wrote")
    return layers


def has_raw_data(path: str | os.PathLike[str]) -> bool:
    """Whether blobs of a caffemodel that can be read hold raw data, which BVLC's Caffe cannot read.

    Such files are written by NVIDIA's Caffe and by OpenCV.
    """
    with wire.mapped(path) as view:
        return any(
            number == _BLOB["raw_data"]
            for field_, numbers in (("layer", _LAYER), ("layers", _V1_LAYER))
            for layer in _fields(view, _NET[field_])
            for blob in _fields(layer, numbers["blobs"])
            for number, _ in wire.records(blob)
        )


def _fields(view: memoryview, number: int) -> Iterator[memoryview]:
    """The contents of each field of this number."""
    return (wire.content(value) for found, value in wire.records(view) if found == number)


def read_blobs(path: str | os.PathLike[str]) -> dict[str, list[Array]]:
    """The blobs of a caffemodel by layer, of the layers that have any; see `read_caffemodel`."""
    return blobs_by_layer(read_caffemodel(path), str(path))


def blobs_by_layer(layers: Sequence[StoredLayer], path: str) -> dict[str, list[Array]]:
    """The blobs of the layers that have any, by name; InputError when two have the same name."""
    blobs: dict[str, list[Array]] = {}
    for layer in layers:
        if layer.blobs and layer.name in blobs:
            raise InputError(f'{path}: has layer "{layer.name}" twice; remove one of them')
        if layer.blobs:
            blobs[layer.name] = layer.blobs
    return blobs


def write_caffemodel(
    path: str | os.PathLike[str],
    name: str,
    layers: Sequence[tuple[LayerParameter, Sequence[Array]]],
) -> None:
    """Write a caffemodel as Caffe's snapshots are: each layer's parameters and float32 blobs.

    `layers` pairs each layer's message, without blobs, with its arrays. Whole or not at all: see
    lglstm.common.files.
    """
    with atomic_path(path) as temporary:
        write_layers(temporary, name, layers)


def write_layers(
    path: str | os.PathLike[str],
    name: str,
    layers: Sequence[tuple[LayerParameter, Sequence[Array]]],
) -> None:
    """As `write_caffemodel`, for a path that is temporary already. Raises OSError.

    Layers are written one by one, so the file is never in memory as a whole.
    """
    with open(path, "wb") as file:
        file.write(NetParameter(name=name).SerializeToString())
        for message, blobs in layers:
            record = LayerParameter()
            record.CopyFrom(message)
            del record.blobs[:]
            for blob in blobs:
                stored = record.blobs.add()
                stored.shape.dim.extend(blob.shape)
                stored.data.append(np.ascontiguousarray(blob, "<f4").tobytes())
            # A NetParameter of one layer is that layer's record; records concatenate.
            file.write(NetParameter(layer=[record]).SerializeToString())


def _layers(view: memoryview) -> Iterator[StoredLayer]:
    count = 0
    for number, value in wire.records(view):
        if number == _NET["layer"]:
            layer = _layer(wire.content(value), _LAYER)
        elif number == _NET["layers"]:
            layer = _layer(wire.content(value), _V1_LAYER)
        else:
            continue
        count += 1
        if count > _MAX_LAYERS:
            raise Damaged(f"it has more than {_MAX_LAYERS} layers")
        yield layer


def _layer(view: memoryview, numbers: dict[str, int]) -> StoredLayer:
    """A layer of either generation; `numbers` are those of its fields."""
    layer = StoredLayer("", "")
    for number, value in wire.records(view):
        if number == numbers["name"]:
            layer.name = wire.text(value)
        elif number == numbers["type"]:
            layer.type = _type(value)
        elif number == numbers["blobs"]:
            _add_blob(layer, wire.content(value))
        elif number == numbers["param"]:
            layer.shared_names.append(_shared_name(value, numbers))
        elif number == numbers.get("v0"):
            raise Damaged("it has layers of the oldest format, V0; upgrade it with Caffe's tool")
    return layer


def _type(value: wire.Value) -> str:
    """A layer's type: the older format's is a number."""
    if isinstance(value, int):
        return V1_LAYER_TYPES.get(value, str(value))
    return wire.text(value)


def _shared_name(value: wire.Value, numbers: dict[str, int]) -> str:
    """The name in a layer's `param`: the older format's is the text itself."""
    if numbers is _V1_LAYER:
        return wire.text(value)
    fields = dict(wire.records(wire.content(value)))
    return wire.text(fields[_PARAM_NAME]) if _PARAM_NAME in fields else ""


def _add_blob(layer: StoredLayer, view: memoryview) -> None:
    if len(layer.blobs) == _MAX_BLOBS:
        raise Damaged(f'layer "{layer.name}" has more than {_MAX_BLOBS} blobs')
    try:
        layer.blobs.append(parse_blob(view))
    except Damaged as error:
        where = f'blob {len(layer.blobs)} of layer "{layer.name}"'
        raise Damaged(f"{where}: {error}") from None


def parse_blob(view: memoryview) -> Array:
    """The array of a BlobProto's bytes. Raises Damaged when it does not hold what its shape says.

    Of several kinds of numbers the raw ones are taken, else, as Caffe does, the doubles.
    """
    dims: list[int] | None = None
    legacy: dict[str, int] = {}
    names = {number: name for name, number in _BLOB.items()}
    floats, doubles = bytearray(), bytearray()
    raw, raw_type = None, 1
    for number, value in wire.records(view):
        name = names.get(number)
        if name == "shape":
            dims = _dims(wire.content(value))
        elif name in _LEGACY_AXES:
            legacy[name] = wire.integer(value)
        elif name == "data":
            floats += wire.content(value)
        elif name == "double_data":
            doubles += wire.content(value)
        elif name == "raw_data_type":
            raw_type = wire.integer(value)
        elif name == "raw_data":
            raw = bytearray(wire.content(value))
    if raw is not None:
        if raw_type not in _RAW_TYPES:
            raise Damaged(f"it holds numbers of the unknown type {raw_type}")
        array = _numbers(raw, _RAW_TYPES[raw_type])
    else:
        array = _numbers(doubles, "<f8") if doubles else _numbers(floats, "<f4")
    if dims is None:  # Caffe writes no shape for a blob without axes, which is a single number
        dims = [legacy.get(axis, 0) for axis in _LEGACY_AXES] if legacy else []
    return array.reshape(_checked_shape(dims, array.size))


def _checked_shape(dims: list[int], count: int) -> list[int]:
    if len(dims) > _MAX_AXES:
        raise Damaged(f"it has {len(dims)} axes, more than {_MAX_AXES}")
    if any(dim < 0 for dim in dims):
        raise Damaged(f"its shape {dims} has a negative size")
    if math.prod(max(dim, 1) for dim in dims) > MAX_COUNT:  # NumPy refuses (2**63, 0), too
        raise Damaged(f"its shape {dims} is larger than Caffe allows")
    if math.prod(dims) != count:
        raise Damaged(f"its shape {dims} needs {math.prod(dims)} numbers, but it has {count}")
    return dims


def _dims(view: memoryview) -> list[int]:
    dims: list[int] = []
    for number, value in wire.records(view):
        if number != _SHAPE_DIM:
            continue
        for dim in wire.integers(value):
            dims.append(dim)
            if len(dims) > _MAX_AXES:
                raise Damaged(f"it has more than {_MAX_AXES} axes")
    return dims


def _numbers(buffer: bytearray, dtype: str) -> Array:
    size = np.dtype(dtype).itemsize
    if len(buffer) % size:
        raise Damaged(f"its {len(buffer)} bytes are not a whole count of {size}-byte numbers")
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, as in Caffe
        return np.frombuffer(buffer, dtype).astype(np.float32, copy=False)
