"""Reading text that people wrote, with whatever editor."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from lglstm.common.files import check_ordinary


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 if it begins with a byte-order mark.

    The mark, which Windows' editors write, is no part of the text. Raises OSError and
    UnicodeDecodeError.
    """
    check_ordinary(path)
    content = Path(path).read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8-sig")
