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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lglstm.common.errors import InputError
from lglstm.data_prep import mat5


def load_mat(path: str | os.PathLike[str], *variables: str) -> dict[str, Any]:
    """Return the variables of a file by name: all, or those asked for, which must be there."""
    with _reading(path):
        if _is_hdf5(path):
            with h5py.File(path, "r") as file:
                names = [n for n in (variables or file.keys()) if n in file and n[0] != "#"]
                found = {name: _plain_hdf5(file[name], file) for name in names}
        else:
            found = _load_v5(path, variables)
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


def text(record: Any, name: str, path: str | os.PathLike[str]) -> str:
    """Return a field that holds text; an empty char array counts as empty text."""
    value = field(record, name, path)
    if isinstance(value, np.ndarray) and value.size == 0:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{path}: '{name}' is not text; is it the file of another data set?")
    return value


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
            yield from mat5.structs(array)
            mat5.finish(array)


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever goes wrong inside into one InputError about `path`."""
    try:
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
            f"{path}: is damaged, or not a MATLAB file of version 5 to 7.3; fetch it again, or "
            "save it in MATLAB with save(..., '-v7')"
        ) from error


def _is_hdf5(path: str | os.PathLike[str]) -> bool:
    """Tell by the signature, which MATLAB puts behind a text header of 512 bytes."""
    if Path(path).is_dir():
        raise IsADirectoryError
    with open(path, "rb") as file:
        start = file.read(520)
    return b"\x89HDF\r\n\x1a\n" in (start[:8], start[512:])


# ---------------------------------------------------------------- version 5 to 7


def _load_v5(path: str | os.PathLike[str], wanted: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    with open(path, "rb") as file:
        for variable in mat5.variables(file):
            if not wanted or variable.name in wanted:
                found[variable.name] = mat5.values(variable)
                mat5.finish(variable)
    return found


def _find_struct(
    file: io.BufferedReader, variable: str, path: str | os.PathLike[str]
) -> mat5.Variable:
    """Find a struct array by name among the top-level variables."""
    found = []
    for head in mat5.variables(file):
        if head.name == variable and head.kind == mat5.STRUCT:
            return head
        found.append(head.name)
    raise InputError(
        f"{path}: has no struct '{variable}' (found: {', '.join(found) or 'nothing'}); is it the "
        "file of another data set or version?"
    )


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
    if value.size * value.dtype.itemsize > mat5.LARGEST:
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
