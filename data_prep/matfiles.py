"""MATLAB files, versions 5 to 7 and 7.3 (HDF5), read into plain Python values.

    number, logical → ndarray, at least 2-D        char → str
    cell            → list                         struct → list of dicts, one per element

in MATLAB's order of elements. Nothing is unpickled or executed, and whatever is wrong with a file
ends as one InputError that names it. `stream_structs` reads a struct array one element at a time,
so that a file of any size needs the memory of one element. Whoever knows what the data set can hold
says it by `limits`: nothing beyond is read.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.files import check_ordinary
from lglstm.data_prep import mat5, mat73
from lglstm.data_prep.limits import LIMITS, Budget, Limits, TooMuch


def load_mat(
    path: str | os.PathLike[str], *variables: str, limits: Limits = LIMITS
) -> dict[str, Any]:
    """Return the variables of a file by name: all, or those asked for, which must be there."""
    budget = Budget(limits)
    with _reading(path):
        if _is_hdf5(path):
            with h5py.File(path, "r") as file:
                wanted = [n for n in mat73.names(file) if not variables or n in variables]
                found = {name: mat73.variable(file, name, budget) for name in wanted}
        else:
            found = _load_v5(path, variables, budget)
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
            return _find_struct(file, variable, path, Budget(LIMITS)).count


def stream_structs(
    path: str | os.PathLike[str], variable: str, limits: Limits = LIMITS
) -> Iterator[dict[str, Any]]:
    """Yield the elements of a struct array one by one, each as a dict; `limits` are for one."""
    budget = Budget(limits)
    with _reading(path):
        if _is_hdf5(path):
            with h5py.File(path, "r") as file:
                for element in _hdf5_elements(file, variable, path):
                    yield {n: mat73.value(v, file, budget) for n, v in element.items()}
                    budget.renew()
            return
        with open(path, "rb") as file:
            array = _find_struct(file, variable, path, budget)
            for element in mat5.structs(array):
                yield element
                budget.renew()
            mat5.finish(array)


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever goes wrong inside into one InputError about `path`."""
    try:
        yield
    except (InputError, GeneratorExit):
        raise
    except TooMuch as error:
        raise InputError(
            f"{path}: claims to hold more than a file of this data set can; fetch it again, or "
            "check that it is the right file"
        ) from error
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
    check_ordinary(path)
    with open(path, "rb") as file:
        start = file.read(520)
    return b"\x89HDF\r\n\x1a\n" in (start[:8], start[512:])


# ---------------------------------------------------------------- version 5 to 7


def _load_v5(
    path: str | os.PathLike[str], wanted: tuple[str, ...], budget: Budget
) -> dict[str, Any]:
    found = {}
    with open(path, "rb") as file:
        for variable in mat5.variables(file, budget):
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


def _hdf5_elements(
    file: h5py.File, variable: str, path: str | os.PathLike[str]
) -> list[dict[str, Any]]:
    found = mat73.elements(file, variable, Budget(LIMITS))
    if found is None:
        names = ", ".join(mat73.names(file))
        raise InputError(f"{path}: has no struct '{variable}' (found: {names or 'nothing'})")
    return found
