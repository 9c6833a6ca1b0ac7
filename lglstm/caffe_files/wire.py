"""Protobuf's wire format: the records of a file, walked over a memory map.

Nothing that a file says is believed before it was checked: lengths against the bytes that are
there, texts against their encoding. Only what a caller copies takes memory.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from typing import BinaryIO

from lglstm.common.errors import InputError
from lglstm.common.files import check_ordinary

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_TEXT = 1 << 20

Value = int | memoryview
"""What a record holds: a number, or the bytes of a text, of packed numbers or of a message."""


class Damaged(Exception):
    """What is wrong with a file's content; a reader makes it an InputError that names the file."""


def require_readable(path: str | os.PathLike[str]) -> None:
    """Raise the InputError of every reader if there is no file at `path` that can be opened."""
    opened(path).close()


def opened(path: str | os.PathLike[str]) -> BinaryIO:
    """The file at `path`, open for reading; InputError for a folder, a pipe or none at all."""
    try:
        check_ordinary(path)
        return open(path, "rb")
    except OSError as error:
        raise _unreadable(path, error.strerror) from None
    except ValueError:  # a NUL in the name
        raise _unreadable(path, "no file has this name") from None


def _unreadable(path: str | os.PathLike[str], reason: str | None) -> InputError:
    return InputError(f"{path}: cannot be read ({reason}); check the path")


@contextlib.contextmanager
def mapped(path: str | os.PathLike[str]) -> Iterator[memoryview]:
    """The bytes of a file. Raises InputError when it cannot be read, Damaged when it is empty."""
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise Damaged("it is empty")
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise _unreadable(path, error.strerror) from None
    try:
        yield memoryview(content)
    finally:
        # On an error, views of the map may still hang in the traceback; the map then closes with
        # them, when they are collected.
        with contextlib.suppress(BufferError):
            content.close()


def records(view: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield field number and value of each record of a message."""
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        number, form = key >> 3, key & 7
        if number == 0:
            raise Damaged("a record has no field number")
        if form == _VARINT:
            value, at = _varint(view, at)
            yield number, value
            continue
        if form == _BYTES:
            length, at = _varint(view, at)
        elif form in (_FIXED64, _FIXED32):
            length = 8 if form == _FIXED64 else 4
        else:
            raise Damaged(f"a record has the unknown form {form}")
        if length > len(view) - at:
            raise Damaged(f"a record of {length} bytes has only {len(view) - at} left")
        yield number, view[at : at + length]
        at += length


def integers(value: Value) -> Iterator[int]:
    """The signed integers of a repeated field's record: one, or any number of packed ones."""
    if isinstance(value, int):
        yield integer(value)
        return
    at = 0
    while at < len(value):
        number, at = _varint(value, at)
        yield integer(number)


def integer(value: Value) -> int:
    """A record's number, signed."""
    if not isinstance(value, int):
        raise Damaged("a size is not an integer")
    return value - 2**64 if value >= 2**63 else value


def content(value: Value) -> memoryview:
    """A record's bytes."""
    if isinstance(value, int):
        raise Damaged("there is a number where a record should be")
    return value


def text(value: Value) -> str:
    """A record's UTF-8 text."""
    view = content(value)
    if len(view) > _MAX_TEXT:
        raise Damaged(f"a name has {len(view)} bytes")
    try:
        return bytes(view).decode("utf-8")
    except UnicodeDecodeError:
        raise Damaged("a name is not UTF-8 text") from None


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where the next record begins."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise Damaged("it ends within a number")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise Damaged("a number has more than ten bytes")
