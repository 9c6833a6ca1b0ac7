"""MATLAB files of version 7.3, which are HDF5, read as far as MATLAB writes it and no further.

HDF5 can do much more than that: links into other files, arrays whose numbers lie in other files or
are put together from them, a hundred bytes that claim a billion numbers, compressed chunks that
expand without end. Nothing of it is followed: see `_member` and `_numbers`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from lglstm.common import hdf5
from lglstm.data_prep.limits import TEXT_BYTES, Budget, TooMuch

DEEPEST = 20

OBJECT_BYTES = 1 << 14
"""Counted for every object that is visited: references can lead to the same one again and again."""

MOST_CHUNKS = 10_000

DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
"""The numbers of the filters that MATLAB uses."""

CHECKSUM_BYTES = 4


def names(file: h5py.File) -> list[str]:
    """The names of a file's variables."""
    return [name for name in file if name[0] != "#"]


def variable(file: h5py.File, name: str, budget: Budget) -> Any:
    """The value of a variable as plain values, see `matfiles`."""
    return _plain(_member(file, name), file, budget)


def elements(file: h5py.File, name: str, budget: Budget) -> list[dict[str, Any]] | None:
    """The elements of a struct array, with values for `value`; None if it is something else."""
    found = _member(file, name) if name in file else None
    return _elements(found, budget) if isinstance(found, h5py.Group) else None


def value(content: Any, file: h5py.File, budget: Budget) -> Any:
    """The plain value of a field of an element."""
    return _plain(content, file, budget)


def _plain(content: Any, file: h5py.File, budget: Budget, depth: int = 0) -> Any:
    """Turn an HDF5 object as MATLAB writes it into plain values."""
    if depth > DEEPEST:
        raise ValueError("nested too deeply")
    budget.take(OBJECT_BYTES, OBJECT_BYTES)
    if isinstance(content, h5py.Reference):
        return _plain(file[content], file, budget, depth + 1)
    if isinstance(content, h5py.Group):
        return [
            {name: _plain(part, file, budget, depth + 1) for name, part in element.items()}
            for element in _elements(content, budget)
        ]
    matlab_class = _attribute(content, "MATLAB_class")
    if _attribute(content, "MATLAB_empty"):
        return "" if matlab_class == b"char" else np.empty((0, 0))
    numbers = _numbers(content, budget)
    if h5py.check_ref_dtype(content.dtype) is not None:
        return [_plain(reference, file, budget, depth + 1) for reference in numbers.reshape(-1)]
    if matlab_class == b"char":
        return _text(numbers)
    return np.atleast_2d(numbers).T


def _text(numbers: np.ndarray) -> str:
    if numbers.nbytes > TEXT_BYTES:
        raise TooMuch
    return "".join(map(chr, numbers.reshape(-1)))


def _elements(group: h5py.Group, budget: Budget) -> list[dict[str, Any]]:
    """Return the elements of a struct: MATLAB stores an array of them as references per field."""
    budget.take(len(group) * OBJECT_BYTES, budget.limits.total)
    fields = {name: _member(group, name) for name in group}
    if not fields or not all(map(_holds_elements, fields.values())):
        return [fields]
    columns = [_numbers(column, budget).reshape(-1) for column in fields.values()]
    return [dict(zip(fields, row, strict=True)) for row in zip(*columns, strict=True)]


def _holds_elements(content: Any) -> bool:
    return (
        isinstance(content, h5py.Dataset)
        and h5py.check_ref_dtype(content.dtype) is h5py.Reference
        and "MATLAB_class" not in content.attrs
    )


def _member(group: h5py.Group, name: str) -> Any:
    """A member that lies in this very file."""
    if not hdf5.is_own(group, name):
        raise ValueError("a link, which could lead into other files")
    return group[name]


def _attribute(content: h5py.Dataset, name: str) -> Any:
    """A short attribute; None if there is none."""
    if name not in content.attrs:
        return None
    stored = content.attrs.get_id(name)
    if stored.dtype.kind not in "Siu" or math.prod(stored.shape) * stored.dtype.itemsize > 1024:
        raise ValueError("an attribute that MATLAB does not write")
    return content.attrs[name]


def _numbers(dataset: Any, budget: Budget) -> np.ndarray:
    """The numbers or references of a dataset that has them in itself, and no more than it says."""
    if not isinstance(dataset, h5py.Dataset) or not hdf5.holds_its_numbers(dataset):
        raise ValueError("numbers that lie in other files")
    is_reference = h5py.check_ref_dtype(dataset.dtype) is h5py.Reference
    if dataset.dtype.kind not in "buif" and not is_reference:
        raise ValueError("numbers of a kind that MATLAB does not write")
    if is_reference:
        budget.take(dataset.size * OBJECT_BYTES, budget.limits.total)
    budget.take(dataset.size * dataset.dtype.itemsize)
    if dataset.chunks is not None:
        _check_chunks(dataset, budget)
    return np.asarray(dataset[()])


def _check_chunks(dataset: h5py.Dataset, budget: Budget) -> None:
    """Refuse chunks that would take more time or memory than the numbers in them."""
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    sides = zip(dataset.shape, dataset.chunks, strict=True)
    if math.prod(-(-side // chunk) for side, chunk in sides) > MOST_CHUNKS:
        raise TooMuch
    budget.take(size)
    filters = _filters(dataset)
    if filters.count(DEFLATE) > 1 or not {DEFLATE, SHUFFLE, FLETCHER32}.issuperset(filters):
        raise ValueError("compressed in a way that MATLAB does not use")
    if DEFLATE in filters:
        for data in _deflated(dataset, filters.index(DEFLATE)):
            # The library would follow the stream to its end, however long.
            if len(zlib.decompressobj().decompress(data, size + CHECKSUM_BYTES + 1)) > (
                size + CHECKSUM_BYTES
            ):
                raise TooMuch


def _filters(dataset: h5py.Dataset) -> list[int]:
    created = dataset.id.get_create_plist()
    return [created.get_filter(k)[0] for k in range(created.get_nfilters())]


def _deflated(dataset: h5py.Dataset, place: int) -> Iterator[bytes]:
    """The stored chunks to which the filter at this place was applied."""
    length = dataset.file.id.get_filesize()
    found: list[Any] = []
    dataset.id.chunk_iter(found.append)
    for chunk in found:
        if chunk.size > length:
            raise EOFError("the file ends too early")
        if not chunk.filter_mask & (1 << place):
            yield dataset.id.read_direct_chunk(chunk.chunk_offset)[1]
