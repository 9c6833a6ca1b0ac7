"""Matplotlib for every picture here, as it is by default, whatever the current folder holds.

Matplotlib obeys a file `matplotlibrc` in the current folder, which can hand its own TeX code to
LaTeX, and the variable MPLBACKEND. So nothing else imports matplotlib.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

BACKEND = "MPLBACKEND"


@contextmanager
def _only_defaults() -> Iterator[None]:
    """Let matplotlib, imported in this block, find its own default file and no backend's name.

    The current folder is where it looks first, before any variable, so that must be another one
    meanwhile. By a handle, because the user's folder may have been deleted.
    """
    found = find_spec("matplotlib")
    if found is None or found.origin is None:  # the import will say that it is missing
        yield
        return
    backend = os.environ.pop(BACKEND, None)
    here = os.open(".", os.O_PATH | os.O_DIRECTORY)
    try:
        os.chdir(Path(found.origin).with_name("mpl-data"))
        yield
    finally:
        os.fchdir(here)
        os.close(here)
        if backend is not None:
            os.environ[BACKEND] = backend


with _only_defaults():
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

__all__ = [
    "Axes",
    "FancyArrowPatch",
    "FancyBboxPatch",
    "Figure",
    "FuncFormatter",
    "Line2D",
    "LogLocator",
    "NullLocator",
    "Patch",
    "plain_style",
]


@contextmanager
def plain_style() -> Iterator[None]:
    """Draw and save in this block with matplotlib's defaults; a `$` in a name is a dollar sign.

    Another program that draws with matplotlib, and calls us, keeps its own settings.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["text.parse_math"] = False
        yield
