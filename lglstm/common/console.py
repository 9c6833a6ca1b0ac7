"""Rich consoles that print what they are given, whatever is in it.

To rich, `[old]` in a path is markup and `:bug:` a picture; all of our output goes through here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.text import Text


def plain_console(**settings: Any) -> Console:
    """A console without markup and emoji codes, in tables and titles, too; `settings` as rich's."""
    console = Console(markup=False, emoji=False, **settings)
    if not console.width:  # COLUMNS=0, with which rich would print nothing
        console.width = 80
    return console


@contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows what is being done, on terminals only."""
    with plain_console(stderr=True).status("") as status:
        yield lambda text: status.update(Text(text))
