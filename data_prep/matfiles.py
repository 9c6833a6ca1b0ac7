"""MATLAB files, versions 5 to 7 and 7.3 (HDF5), read into plain Python values.

    number, logical → ndarray, at least 2-D        char → str
    cell            → list                         struct → list of dicts, one per element

in MATLAB's order of elements. Nothing is unpickled or executed, and whatever is wrong with a file
ends as one InputError that names it. `stream_structs` reads a struct array one element at a time,
so that a file of any size needs the memory of one element.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import scipy.io

from common.errors import InputError

LARGEST = 2**31
"""No single value of the sets here comes near this many bytes; larger claims are damage."""

_HEADER, _MATRIX, _COMPRESSED = 128, 14, 15
_NAMED_X = struct.pack("<HHc3x", 1, 1, b"x")  # the array name 'x' as a small element


def load_mat(path: str | os.PathLike[str], *variables: str) -> dict[str, Any]:
    """Return the variables of a file by name: all, or those asked for, which must be there."""
    with _reading(path):
        if _is_hdf5(path):
            with h5py.File(path, "r") as file:
                names = [n for n in (variables or file.keys()) if n in file and n[0] != "#"]
                found = {name: _plain_hdf5(file[name], file) for name in names}
        else:
            found = _load_v5(path, variables or None)
    return {name: field(found, name, path) for name in variables} if variables else found


def field(record: Any, name: str, path: str | os.PathLike[str]) -> Any:
    """Return `record[name]`; raise InputError when `path` did not have that field."""
    if not isinstance(record, dict) or name not in record:
        there = ", ".join(record) if isinstance(record, dict) else type(record).__name__
        raise InputError(
            f"{path}: has no field '{name}' (found: {there or 'nothing'}); is it the file of "
            "another data set or version?"
        )
    return record[name]


def structs(value: Any, what: str, path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return a struct array as it is and an empty array as no structs; refuse anything else."""
    if isinstance(value, list) and all(isinstance(element, dict) for element in value):
        return value
    if isinstance(value, np.ndarray) and value.size == 0:
        return []
    raise InputError(f"{path}: '{what}' is not a struct; is it the file of another data set?")


def count_structs(path: str | os.PathLike[str], variable: str) -> int:
    """Return the number of elements of a struct array without reading them."""
    with _reading(path):
        if _is_hdf5(path):
            with h5py.File(path, "r") as file:
                return len(_hdf5_elements(file, variable, path))
        with open(path, "rb") as file:
            return _find_struct(file, variable, path).count


def stream_structs(path: str | os.PathLike[str], variable: str) -> Iterator[dict[str, Any]]:
    """Yield the elements of a struct array one by one, each as a dict."""
    with _reading(path):
        if _is_hdf5(path):
            with h5py.File(path, "r") as file:
                for element in _hdf5_elements(file, variable, path):
                    yield {name: _plain_hdf5(value, file) for name, value in element.items()}
            return
        with open(path, "rb") as file:
            array = _find_struct(file, variable, path)
            for _ in range(array.count):
                yield _load_v5(io.BytesIO(array.next_as_file()))["x"][0]


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever goes wrong inside into one InputError about `path`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (InputError, GeneratorExit):
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: does not exist; check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder, not a MATLAB file") from error
    except PermissionError as error:
        raise InputError(f"{path}: may not be read; check its permissions") from error
    except Exception as error:  # the readers raise all kinds of exceptions on damaged files
        raise InputError(
            f"{path}: is damaged, or no MATLAB file of version 5 to 7.3; fetch it again, or save "
            "it in MATLAB with save(..., '-v7')"
        ) from error


def _is_hdf5(path: str | os.PathLike[str]) -> bool:
    """Tell by the signature, which MATLAB puts behind a text header of 512 bytes."""
    if Path(path).is_dir():
        raise IsADirectoryError
    with open(path, "rb") as file:
        start = file.read(520)
    return b"\x89HDF\r\n\x1a\n" in (start[:8], start[512:])


# ---------------------------------------------------------------- version 5 to 7


def _load_v5(source: Any, variables: tuple[str, ...] | None = None) -> dict[str, Any]:
    loaded = scipy.io.loadmat(
        source, variable_names=variables, verify_compressed_data_integrity=True
    )
    return {name: _plain(value) for name, value in loaded.items() if not name.startswith("__")}


def _plain(value: Any) -> Any:
    """Turn what scipy returns into the plain values of this module."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"unsupported MATLAB value {type(value).__name__}")
    elements = value.reshape(-1, order="F")
    if value.dtype.names:
        return [{name: _plain(e[name]) for name in value.dtype.names} for e in elements]
    if value.dtype == object:
        return [_plain(e) for e in elements]
    return "".join(elements) if value.dtype.kind in "US" else value


class _StructArray:
    """A struct array within a version-5 file, positioned before its first element."""

    def __init__(self, stream: BinaryIO, order: str, flags: bytes, count: int) -> None:
        self.stream, self.order, self.flags, self.count = stream, order, flags, count
        self.names = _read_element(stream, order) + _read_element(stream, order)
        width = struct.unpack(order + "i", self.names[4:8])[0]
        if width < 1:
            raise ValueError("field names of no length")
        self.fields = (len(self.names) - 16) // width

    def next_as_file(self) -> bytes:
        """Return the next element as a file with one 1 × 1 struct named 'x'."""
        one = struct.pack(self.order + "IIii", 5, 8, 1, 1)
        name = _NAMED_X if self.order == "<" else struct.pack(">HHc3x", 1, 1, b"x")
        values = [_read_element(self.stream, self.order) for _ in range(self.fields)]
        body = b"".join([self.flags, one, name, self.names, *values])
        mark = b"IM" if self.order == "<" else b"MI"
        start = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(self.order + "H", 0x100) + mark
        return start + struct.pack(self.order + "II", _MATRIX, len(body)) + body


def _find_struct(file: BinaryIO, variable: str, path: str | os.PathLike[str]) -> _StructArray:
    """Find a struct array by name among the top-level variables."""
    header = _exactly(file, _HEADER)
    order = {b"IM": "<", b"MI": ">"}[header[126:]]
    found = []
    while tag := file.read(8):
        kind, size = struct.unpack(order + "II", tag)
        following = file.tell() + size
        stream: Any = file
        if kind == _COMPRESSED:
            stream = _Inflated(file, size)
            kind, _ = struct.unpack(order + "II", _exactly(stream, 8))
        if kind == _MATRIX:
            flags, dims, name = (_read_element(stream, order) for _ in range(3))
            found.append(_payload(name, order).decode("ascii", "replace"))
            if found[-1] == variable:
                matrix_class = struct.unpack(order + "I", flags[8:12])[0] & 0xFF
                if matrix_class != 2:
                    raise InputError(f"{path}: '{variable}' is not a struct array")
                extent = np.frombuffer(_payload(dims, order), order + "i4")
                return _StructArray(stream, order, flags, int(extent.prod(dtype=np.int64)))
        file.seek(following)
    raise InputError(
        f"{path}: has no variable '{variable}' (found: {', '.join(found) or 'none'}); is it the "
        "file of another data set or version?"
    )


def _read_element(stream: BinaryIO, order: str) -> bytes:
    """Read one data element with its tag and padding."""
    tag = _exactly(stream, 8)
    first, size = struct.unpack(order + "II", tag)
    if first >> 16:  # a small element: size and type share the first word, the data is the second
        return tag
    if size > LARGEST:
        raise ValueError("an element of impossible size")
    padding = 0 if first in (_MATRIX, _COMPRESSED) else -size % 8
    return tag + _exactly(stream, size + padding)


def _payload(element: bytes, order: str) -> bytes:
    first, size = struct.unpack(order + "II", element[:8])
    return element[4 : 4 + (first >> 16)] if first >> 16 else element[8 : 8 + size]


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("the file ends too early")
    return data


class _Inflated:
    """The decompressed content of a stretch of a file, as a stream."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left = file, size
        self.inflate = zlib.decompressobj()
        self.buffer = bytearray()

    def read(self, size: int) -> bytes:
        while len(self.buffer) < size and not self.inflate.eof:
            waiting = self.inflate.unconsumed_tail
            if not waiting:
                waiting = self.file.read(min(self.left, 1 << 20))
                self.left -= len(waiting)
            if not waiting:
                break
            self.buffer += self.inflate.decompress(waiting, 1 << 22)
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data


# ---------------------------------------------------------------- version 7.3


def _plain_hdf5(value: Any, file: h5py.File, depth: int = 0) -> Any:
    """Turn an HDF5 object as MATLAB writes it into the plain values of this module."""
    if depth > 20:
        raise ValueError("nested too deeply")
    if isinstance(value, h5py.Reference):
        return _plain_hdf5(file[value], file, depth + 1)
    if isinstance(value, h5py.Group):
        elements = _group_elements(value, file)
        return [{n: _plain_hdf5(v, file, depth + 1) for n, v in e.items()} for e in elements]
    matlab_class = value.attrs.get("MATLAB_class", b"")
    if value.attrs.get("MATLAB_empty", 0):
        return "" if matlab_class == b"char" else np.empty((0, 0))
    if value.size * value.dtype.itemsize > LARGEST:
        raise ValueError("an array of impossible size")
    content = value[()]
    if value.dtype == h5py.ref_dtype:
        return [_plain_hdf5(reference, file, depth + 1) for reference in content.reshape(-1)]
    if matlab_class == b"char":
        return "".join(map(chr, np.asarray(content).reshape(-1)))
    return np.atleast_2d(content).T


def _group_elements(group: h5py.Group, file: h5py.File) -> list[dict[str, Any]]:
    """Return the elements of a struct: MATLAB stores an array of them as references per field."""
    if group and all(_holds_elements(value) for value in group.values()):
        columns = {name: value[()].reshape(-1) for name, value in group.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [dict(group.items())]


def _holds_elements(value: Any) -> bool:
    return (
        isinstance(value, h5py.Dataset)
        and value.dtype == h5py.ref_dtype
        and "MATLAB_class" not in value.attrs
    )


def _hdf5_elements(
    file: h5py.File, variable: str, path: str | os.PathLike[str]
) -> list[dict[str, Any]]:
    if not isinstance(file.get(variable), h5py.Group):
        names = ", ".join(name for name in file if name[0] != "#")
        raise InputError(f"{path}: has no struct '{variable}' (found: {names or 'nothing'})")
    return _group_elements(file[variable], file)
