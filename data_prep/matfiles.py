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
from lglstm.data_prep.limits import OBJECT_BYTES, Budget, TooMuch


def load_mat(path: str | os.PathLike[str], *variables: str) -> dict[str, Any]:
    """Return the variables of a file by name: all, or those asked for, which must be there."""
    with _reading(path):
        if _is_hdf5(path):
            with h5py.File(path, "r") as file:
                names = [n for n in (variables or file.keys()) if n in file and n[0] != "#"]
                reader = _Hdf5(file, Budget())
                found = {name: reader.plain(reader.member(file, name)) for name in names}
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
                return len(_Hdf5(file, Budget()).elements(variable, path))
        with open(path, "rb") as file:
            return _find_struct(file, variable, path, Budget()).count


def stream_structs(path: str | os.PathLike[str], variable: str) -> Iterator[dict[str, Any]]:
    """Yield the elements of a struct array one by one, each as a dict."""
    budget = Budget()
    with _reading(path):
        if _is_hdf5(path):
            with h5py.File(path, "r") as file:
                reader = _Hdf5(file, budget)
                for element in reader.elements(variable, path):
                    budget.refill()
                    yield {name: reader.plain(value) for name, value in element.items()}
            return
        with open(path, "rb") as file:
            array = _find_struct(file, variable, path, budget)
            for found in mat5.structs(array):
                budget.refill()
                yield found
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
    except TooMuch as error:
        raise InputError(
            f"{path}: claims to hold more than any file of these data sets; fetch it again"
        ) from error
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
        for variable in mat5.variables(file, Budget()):
            if not wanted or variable.name in wanted:
                found[variable.name] = mat5.values(variable)
                mat5.finish(variable)
    return found


def _find_struct(
    file: io.BufferedReader, variable: str, path: str | os.PathLike[str], budget: Budget
) -> mat5.Variable:
    """Find a struct array by name among the top-level variables."""
    found = []
    for head in mat5.variables(file, budget):
        if head.name == variable and head.kind == mat5.STRUCT:
            return head
        found.append(head.name)
    raise InputError(
        f"{path}: has no struct '{variable}' (found: {', '.join(found) or 'nothing'}); is it the "
        "file of another data set or version?"
    )


# ---------------------------------------------------------------- version 7.3


class _Hdf5:
    """Reads what MATLAB writes into an HDF5 file, and nothing that lies in another file."""

    def __init__(self, file: h5py.File, budget: Budget) -> None:
        self.file, self.budget = file, budget

    def elements(self, variable: str, path: str | os.PathLike[str]) -> list[dict[str, Any]]:
        """The elements of a struct array, not yet read."""
        there = [name for name in self.file if name[0] != "#"]
        group = self.member(self.file, variable) if variable in there else None
        if not isinstance(group, h5py.Group):
            names = ", ".join(there) or "nothing"
            raise InputError(f"{path}: has no struct '{variable}' (found: {names})")
        return self._structs(group)

    def member(self, group: h5py.Group, name: str) -> Any:
        """An object of a group, if it is stored there."""
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} leads elsewhere")
        value = group[name]
        if isinstance(value, h5py.Dataset) and (value.is_virtual or value.external):
            raise ValueError(f"{name} lies in another file")
        return value

    def plain(self, value: Any, depth: int = 0) -> Any:
        """Turn an object into the plain values of this module."""
        if depth > 20:
            raise ValueError("nested too deeply")
        self.budget.take(OBJECT_BYTES)
        if isinstance(value, h5py.Reference):
            return self.plain(self._target(value), depth + 1)
        if isinstance(value, h5py.Group):
            elements = self._structs(value)
            return [{n: self.plain(v, depth + 1) for n, v in e.items()} for e in elements]
        matlab_class = value.attrs.get("MATLAB_class", b"")
        if value.attrs.get("MATLAB_empty", 0):
            return "" if matlab_class == b"char" else np.empty((0, 0))
        content = self._content(value)
        if value.dtype == h5py.ref_dtype:
            return [self.plain(reference, depth + 1) for reference in content.reshape(-1)]
        if matlab_class == b"char":
            return "".join(map(chr, np.asarray(content).reshape(-1)))
        return np.atleast_2d(content).T

    def _target(self, reference: h5py.Reference) -> Any:
        value = self.file[reference]
        if isinstance(value, h5py.Dataset) and (value.is_virtual or value.external):
            raise ValueError("a reference leads into another file")
        return value

    def _content(self, dataset: h5py.Dataset) -> Any:
        self.budget.take(dataset.size * dataset.dtype.itemsize)
        return dataset[()]

    def _structs(self, group: h5py.Group) -> list[dict[str, Any]]:
        """The elements of a struct: MATLAB stores an array of them as references per field."""
        fields = {name: self.member(group, name) for name in group}
        if fields and all(_holds_elements(value) for value in fields.values()):
            columns = {name: self._content(value).reshape(-1) for name, value in fields.items()}
            rows = zip(*columns.values(), strict=True)
            return [dict(zip(columns, row, strict=True)) for row in rows]
        return [fields]


def _holds_elements(value: Any) -> bool:
    return (
        isinstance(value, h5py.Dataset)
        and value.dtype == h5py.ref_dtype
        and "MATLAB_class" not in value.attrs
    )
