"""What to say when a name is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(given: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant, or which there are: a clause for an error."""
    known = list(known)
    close = difflib.get_close_matches(given, known, n=1)
    if close:
        return f"did you mean {close[0]}"
    return f"choose one of {', '.join(known)}" if known else "there are none"
