"""Where this code runs from: a checkout of the project, or an installed package."""

from __future__ import annotations

from pathlib import Path

import lglstm

PACKAGE = Path(lglstm.__file__).resolve().parent


def checkout() -> Path | None:
    """The checkout of the project that this code runs from; None for an installed package.

    Only the package has `models/` inside; in a checkout it lies beside `lglstm/`.
    """
    return None if (PACKAGE / "models").is_dir() else PACKAGE.parent


def setup_advice() -> str:
    """What to do when Caffe, or a part of it, is missing: a clause for an error."""
    where = checkout() or "a checkout of the project"
    return f"run `make setup` in {where}, then use its .venv/bin/lglstm"
