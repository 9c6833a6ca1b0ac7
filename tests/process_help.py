"""Looks at the processes that a command has started."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

# Seconds that may pass on a machine that is busy with other things.
PATIENCE = 300


def descendants(of: int) -> set[int]:
    """The processes that a process has started, and those that they have."""
    children = Path(f"/proc/{of}/task/{of}/children")
    found = set(map(int, children.read_text().split())) if children.exists() else set()
    return found.union(*map(descendants, found))


def is_running(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def wait_until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.005)
