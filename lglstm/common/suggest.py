"""What to say when a name is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(given: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant, or which there are: a clause for an error."""
    known = list(known)
    if name := close(given, known):
        return f"did you mean {name}"
    return f"choose one of {', '.join(known)}" if known else "there are none"


def close(given: str, known: Iterable[str]) -> str | None:
    """Return the known name that is much like the given one, in whatever case; None if none is."""
    by_folded = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(given.casefold(), by_folded, n=1)
    return by_folded[found[0]] if found else None
