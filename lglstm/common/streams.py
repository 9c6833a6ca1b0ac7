"""Output streams that print whatever they are given.

A stream that cannot encode a character, such as × in ASCII, would end the program.
"""

from __future__ import annotations

import codecs
import sys
import unicodedata

_ERRORS = "lglstm.readable"
_SUBSTITUTES = {"×": "x", "±": "+-", "–": "-", "…": "...", "≤": "<=", "⌈": "", "⌉": "", "·": "."}
_SUBSTITUTES |= {"─": "-", "→": "->", "²": "2", "½": "1/2", "“": '"', "”": '"', "’": "'"}


def let_streams_print_anything() -> None:
    """Characters that standard output or error cannot encode are replaced by similar ones.

    Bytes of file names that are not text in any encoding go out as they are.
    """
    codecs.register_error(_ERRORS, _readable)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ERRORS)


def _readable(error: UnicodeError) -> tuple[bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return b"".join(map(_replacement, characters)), error.end


def _replacement(character: str) -> bytes:
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00])
    similar = _SUBSTITUTES.get(character, unicodedata.normalize("NFKD", character))
    return similar.encode("ascii", "ignore") or b"?"
