"""Reads and writes `.caffemodel` files, layer by layer, without Caffe.

The reader walks the file's protobuf records over a memory map: only the numbers of the blobs are
copied, so a file of any size needs the memory of its weights and no more. Nothing that the file
says is believed before it was checked: lengths against the bytes that are there, dimensions against
the count of numbers.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from lglstm.caffe_files.schema import V1_LAYER_TYPES, LayerParameter, NetParameter
from lglstm.common.errors import InputError
from lglstm.common.files import atomic_path

# Caffe's own limits (blob.hpp), and generous ones where it has none.
_MAX_AXES = 32
_MAX_COUNT = 2**31 - 1
_MAX_BLOBS = 64
_MAX_LAYERS = 100_000
_MAX_TEXT = 1 << 20

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_RAW_TYPES = {0: "<f8", 1: "<f4", 2: "<f2"}  # of NVIDIA's Caffe and OpenCV: double, float, half


@dataclass
class StoredLayer:
    """One layer of a caffemodel: its name, its type ("" when not stored) and its blobs, float32."""

    name: str
    type: str
    blobs: list[np.ndarray] = field(default_factory=list)


class _Damaged(Exception):
    """What is wrong with the file; becomes an InputError that names it."""


def read_caffemodel(path: str | os.PathLike[str]) -> list[StoredLayer]:
    """Read all layers of a caffemodel in file order.

    Both generations of the format are read (`layer` and the older `layers`), numbers stored as
    float, double or half; all come back as float32. Raises InputError for a file that is no
    caffemodel, is truncated, or whose blobs do not hold what their shapes say.
    """
    try:
        with open(path, "rb") as file, _memory_map(file) as view:
            layers = list(_net(view))
    except _Damaged as error:
        raise InputError(
            f"{path}: not a whole caffemodel ({error}); copy or download it again, or give the "
            "right file"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    if not layers:
        raise InputError(f"{path}: holds no layers; give a .caffemodel file")
    return layers


class _memory_map:
    """The file's bytes as a memoryview, released before the map closes."""

    def __init__(self, file):
        if os.fstat(file.fileno()).st_size == 0:
            raise _Damaged("it is empty")
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> memoryview:
        return memoryview(self._map)

    def __exit__(self, *_) -> None:
        # On an error, views of the map may still hang in the traceback; the map then closes with
        # them, when they are collected.
        with contextlib.suppress(BufferError):
            self._map.close()


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise _Damaged("it ends within a number")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise _Damaged("a number has more than ten bytes")


def _records(view: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value) of one message; a value is an int, or a view of its bytes."""
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise _Damaged("a record has no field number")
        if wire == _VARINT:
            value, at = _varint(view, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(view, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise _Damaged(f"a record has the unknown form {wire}")
        if length > len(view) - at:
            raise _Damaged(f"a record of {length} bytes has only {len(view) - at} left")
        yield number, view[at : at + length]
        at += length


def _net(view: memoryview) -> Iterator[StoredLayer]:
    v1, v2 = (
        next(f.number for f in NetParameter.DESCRIPTOR.fields if f.name == n)
        for n in ("layers", "layer")
    )
    readers = {v1: _v1_layer, v2: _v2_layer}
    count = 0
    for number, value in _records(view):
        if number not in readers:
            continue
        count += 1
        if count > _MAX_LAYERS:
            raise _Damaged(f"it has more than {_MAX_LAYERS} layers")
        yield readers[number](_view(value))


def _v2_layer(view: memoryview) -> StoredLayer:
    return _layer(view, name=1, type_=2, blobs=7)


def _v1_layer(view: memoryview) -> StoredLayer:
    return _layer(view, name=4, type_=5, blobs=6, v0=1)


def _layer(
    view: memoryview, name: int, type_: int, blobs: int, v0: int | None = None
) -> StoredLayer:
    layer = StoredLayer("", "")
    for number, value in _records(view):
        if number == name:
            layer.name = _text(value)
        elif number == type_:
            v1 = isinstance(value, int)
            layer.type = V1_LAYER_TYPES.get(value, str(value)) if v1 else _text(value)
        elif number == blobs:
            if len(layer.blobs) == _MAX_BLOBS:
                raise _Damaged(f'layer "{layer.name}" has more than {_MAX_BLOBS} blobs')
            try:
                layer.blobs.append(_blob(_view(value)))
            except _Damaged as error:
                where = f'blob {len(layer.blobs)} of layer "{layer.name}"'
                raise _Damaged(f"{where}: {error}") from None
        elif number == v0:
            raise _Damaged("it has layers of the oldest format, V0; upgrade it with Caffe's tool")
    return layer


def _blob(view: memoryview) -> np.ndarray:
    dims: list[int] | None = None
    legacy = [None] * 4
    floats, doubles = bytearray(), bytearray()
    raw, raw_type = None, 1
    for number, value in _records(view):
        if number == 7:
            dims = _shape(_view(value))
        elif 1 <= number <= 4:
            legacy[number - 1] = _signed(value)
        elif number == 5:
            floats += _view(value)
        elif number == 8:
            doubles += _view(value)
        elif number == 10:
            raw_type = _signed(value)
        elif number == 12:
            raw = bytearray(_view(value))
    if raw is not None:
        if raw_type not in _RAW_TYPES:
            raise _Damaged(f"it holds numbers of the unknown type {raw_type}")
        numbers = _numbers(raw, _RAW_TYPES[raw_type])
    else:  # as Caffe: the doubles, if there are any
        numbers = _numbers(doubles, "<f8") if doubles else _numbers(floats, "<f4")
    if dims is None:
        dims = [dim or 0 for dim in legacy]
    return numbers.reshape(_checked_shape(dims, numbers.size))


def _checked_shape(dims: list[int], count: int) -> list[int]:
    if len(dims) > _MAX_AXES:
        raise _Damaged(f"it has {len(dims)} axes, more than {_MAX_AXES}")
    if any(dim < 0 for dim in dims):
        raise _Damaged(f"its shape {dims} has a negative size")
    if math.prod(dims) > _MAX_COUNT:
        raise _Damaged(f"its shape {dims} is larger than Caffe allows")
    if math.prod(dims) != count:
        raise _Damaged(f"its shape {dims} needs {math.prod(dims)} numbers and it holds {count}")
    return dims


def _shape(view: memoryview) -> list[int]:
    dims: list[int] = []
    for number, value in _records(view):
        if number != 1:
            continue
        if isinstance(value, int):
            dims.append(_signed(value))
        else:
            at = 0
            while at < len(value):
                dim, at = _varint(value, at)
                dims.append(_signed(dim))
        if len(dims) > _MAX_AXES:
            raise _Damaged(f"it has more than {_MAX_AXES} axes")
    return dims


def _numbers(view: bytearray, dtype: str) -> np.ndarray:
    size = np.dtype(dtype).itemsize
    if len(view) % size:
        raise _Damaged(f"its {len(view)} bytes are no whole count of {size}-byte numbers")
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, as in Caffe
        return np.frombuffer(view, dtype).astype(np.float32, copy=False)


def _signed(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise _Damaged("a size is no integer")
    return value - 2**64 if value >= 2**63 else value


def _view(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _Damaged("a number stands where a record should")
    return value


def _text(value: int | memoryview) -> str:
    view = _view(value)
    if len(view) > _MAX_TEXT:
        raise _Damaged(f"a name has {len(view)} bytes")
    try:
        return bytes(view).decode("utf-8")
    except UnicodeDecodeError:
        raise _Damaged("a name is no UTF-8 text") from None


def write_caffemodel(
    path: str | os.PathLike[str],
    name: str,
    layers: list[tuple[LayerParameter, list[np.ndarray]]],
) -> None:
    """Write a caffemodel as Caffe's snapshots are: each layer's parameters and float32 blobs.

    `layers` pairs each layer's message, without blobs, with its arrays. Layers are written one by
    one, so the file is never in memory as a whole. Whole or not at all: see lglstm.common.files.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
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
