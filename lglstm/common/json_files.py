"""Reading a JSON object that a person wrote into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lglstm.common.errors import InputError
from lglstm.common.rules import parse_object
from lglstm.common.text_files import read_text

LARGEST = 1_000_000
"""Bytes; what people write, such as 255 classes with long names, needs a tenth of it."""


def read_object(path: Path, example: str) -> dict[str, Any]:
    """Return the JSON object in a file.

    example: an object to show in messages. Raises InputError that names the file when it is
    missing, cannot be read, is too large, is no such object, or gives a key twice.
    """
    try:
        if not path.is_file():
            raise InputError(f"{path}: there is no such file; name one that holds {example}")
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path}: has more than {LARGEST:,} bytes; name one such as {example}")
        text = read_text(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8; write {example}") from error
    return parse_object(str(path), text, example, what="it")
