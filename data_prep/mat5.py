"""MATLAB files of version 5 to 7, read strictly and as a stream.

A file is a header of 128 bytes and a row of data elements, each a tag (type, size) and its bytes;
an array is an element that holds others: flags, dimensions, name, values. Compressed variables are
elements in a zlib stream. Every size is checked against the bytes that are there, which the usual
reader does not: damaged files crash it. And it is checked against what the data set can hold: a
zlib stream of 200 KB can be 200 MB of zeros.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lglstm.data_prep.limits import OBJECT_BYTES, TEXT_BYTES, Budget

DEEPEST = 16
MOST_VARIABLES = 10_000
INFLATED_AT_ONCE = 1 << 20
HEADER = 128
MATRIX, COMPRESSED = 14, 15
STORAGE = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
CELL, STRUCT, CHAR = 1, 2, 4
NUMERIC = {
    6: "f8",
    7: "f4",
    8: "i1",
    9: "u1",
    10: "i2",
    11: "u2",
    12: "i4",
    13: "u4",
    14: "i8",
    15: "u8",
}
LOGICAL, COMPLEX = 1 << 9, 1 << 11


class Stream(Protocol):
    """What can be read byte by byte."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Variable:
    """The head of an array whose values are still to be read from `elements`."""

    name: str
    kind: int
    flags: int
    shape: tuple[int, ...]
    elements: Elements

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def variables(file: io.BufferedReader, budget: Budget) -> Iterator[Variable]:
    """Yield the heads of a file's variables; read the values of one before asking for the next.

    Raises TooMuch as soon as more is to be read than the budget allows.
    """
    header = _exactly(file, HEADER)
    order = {b"IM": "<", b"MI": ">"}[header[126:]]
    outer = Elements(file, order, budget)
    for _ in range(MOST_VARIABLES):
        tag = outer.next_tag_or_end()
        if tag is None:
            return
        kind, size = tag
        following = file.tell() + size
        if kind == COMPRESSED:
            inner = Elements(_Inflated(file, size, budget), order, budget)
            kind, size = inner.next_tag()
        else:
            inner = outer
        if kind == MATRIX and size:
            yield _head(inner)
        file.seek(following)
    raise ValueError("too many variables")


def structs(variable: Variable, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the elements of a struct array one by one."""
    if variable.kind != STRUCT:
        raise ValueError("not a struct array")
    elements = variable.elements
    width = int(np.frombuffer(elements.next(TEXT_BYTES)[1], elements.order + "i4")[0])
    if width < 1:
        raise ValueError("field names of no length")
    packed = elements.next(TEXT_BYTES)[1]
    starts = range(0, len(packed), width)
    names = [packed[k : k + width].split(b"\0")[0].decode("ascii") for k in starts]
    for _ in range(variable.count if names else 0):
        yield {name: _array(elements, depth + 1) for name in names}


def values(variable: Variable, depth: int = 0) -> Any:
    """Read the values of an array: ndarray, str, list (cell) or list of dicts (struct)."""
    elements = variable.elements
    if variable.kind == STRUCT:
        return list(structs(variable, depth))
    if variable.kind == CELL:
        return [_array(elements, depth + 1) for _ in range(variable.count)]
    if variable.kind == CHAR:
        return _text(elements) if variable.count else ""
    if variable.kind not in NUMERIC or variable.flags & COMPLEX:
        raise ValueError("an array of a class that these data sets do not use")
    target = np.dtype(bool if variable.flags & LOGICAL else NUMERIC[variable.kind])
    elements.budget.take(variable.count * target.itemsize)
    kind, data = elements.next(variable.count * 8)
    stored = np.frombuffer(data, elements.order + STORAGE[kind])
    return stored.astype(target).reshape(variable.shape, order="F")


def _array(elements: Elements, depth: int) -> Any:
    """Read one array within another."""
    if depth > DEEPEST:
        raise ValueError("nested too deeply")
    elements.budget.take(OBJECT_BYTES, OBJECT_BYTES)
    kind, size = elements.next_tag()
    if kind != MATRIX:
        raise ValueError("no array where one must be")
    if not size:
        return np.empty((0, 0))
    part = _Part(elements.stream, size)
    value = values(_head(Elements(part, elements.order, elements.budget)), depth)
    part.skip_rest()
    return value


def _head(elements: Elements) -> Variable:
    """Read flags, dimensions and name of an array."""
    order = elements.order
    flags = int(np.frombuffer(elements.next(TEXT_BYTES)[1], order + "u4")[0])
    shape = tuple(np.frombuffer(elements.next(TEXT_BYTES)[1], order + "i4").tolist())
    name = elements.next(TEXT_BYTES)[1].decode("ascii")
    if len(shape) < 2 or min(shape) < 0:
        raise ValueError("impossible dimensions")
    return Variable(name, flags & 0xFF, flags, shape, elements)


def _text(elements: Elements) -> str:
    kind, data = elements.next(TEXT_BYTES)
    wide = TEXT[kind] in ("utf-16", "utf-32")
    ending = {"<": "-le", ">": "-be"}[elements.order] if wide else ""
    return data.decode(TEXT[kind] + ending)


def finish(variable: Variable) -> None:
    """Read a compressed variable to its end, where its checksum is; raise if that is wrong."""
    if isinstance(variable.elements.stream, _Inflated):
        variable.elements.stream.drain()


class Elements:
    """A row of data elements."""

    def __init__(self, stream: Stream, order: str, budget: Budget) -> None:
        self.stream, self.order, self.budget = stream, order, budget

    def next_tag(self) -> tuple[int, int]:
        """Read a full tag, (type, size)."""
        tag = self.next_tag_or_end()
        if tag is None:
            raise EOFError("the file ends too early")
        return tag

    def next_tag_or_end(self) -> tuple[int, int] | None:
        """Read a full tag; None at the end of the stream."""
        tag = self.stream.read(8)
        if not tag:
            return None
        if len(tag) < 8:
            raise EOFError("the file ends too early")
        kind, size = struct.unpack(self.order + "II", tag)
        return kind, size

    def next(self, largest: int) -> tuple[int, bytes]:
        """Read an element of up to `largest` bytes: its type and its bytes."""
        first, second = tag = self.next_tag()
        if first >> 16:  # a small element: size and type in the first word, its data the second
            return first & 0xFFFF, struct.pack(self.order + "I", second)[: first >> 16]
        kind, size = tag
        if size > largest:
            raise ValueError("an element of impossible size")
        data = _exactly(self.stream, size)
        self.stream.read(-size % 8)
        return kind, data


class _Part:
    """The next `size` bytes of a stream."""

    def __init__(self, stream: Stream, size: int) -> None:
        self.stream, self.left = stream, size

    def read(self, size: int, /) -> bytes:
        data = self.stream.read(min(size, self.left))
        self.left -= len(data)
        return data

    def skip_rest(self) -> None:
        while self.left and self.read(1 << 16):
            pass
        if self.left:
            raise EOFError("the file ends too early")


class _Inflated:
    """The decompressed content of a stretch of a file."""

    def __init__(self, file: Stream, size: int, budget: Budget) -> None:
        self.file, self.left, self.budget = file, size, budget
        self.inflate = zlib.decompressobj()
        self.buffer = bytearray()

    def read(self, size: int, /) -> bytes:
        while len(self.buffer) < size and not self.inflate.eof:
            waiting = self.inflate.unconsumed_tail
            if not waiting:
                waiting = self.file.read(min(self.left, 1 << 20))
                self.left -= len(waiting)
            if not waiting:
                break
            inflated = self.inflate.decompress(waiting, INFLATED_AT_ONCE)
            self.budget.take(len(inflated), INFLATED_AT_ONCE)
            self.buffer += inflated
        data = memoryview(self.buffer)[:size].tobytes()
        del self.buffer[:size]
        return data

    def drain(self) -> None:
        while self.read(1 << 20):
            pass
        if not self.inflate.eof:
            raise EOFError("the file ends too early")


def _exactly(stream: Stream, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("the file ends too early")
    return data
