"""What a run notes about itself beside its snapshots: how it was started, and their fingerprints.

Caffe's snapshots hold neither. Without the first, a run continued with other settings would go on
elsewhere in its data; without the second, a damaged byte among the weights could not be seen.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lglstm.common.files import write_text
from lglstm.common.hashing import sha256_of, sha256_of_json
from lglstm.common.text_files import read_text

KINDS = ("caffemodel", "solverstate")

logger = logging.getLogger(__name__)


@dataclass
class RunRecord:
    """settings: what must not change on resuming. snapshots: iteration -> kind -> SHA-256."""

    settings: dict[str, Any] = field(default_factory=dict)
    snapshots: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, iteration: int, state: Path) -> None:
        """Take the fingerprints of a snapshot that was just written."""
        self.snapshots[str(iteration)] = {
            kind: sha256_of(state.with_suffix(f".{kind}")) for kind in KINDS
        }

    def complete(self, iteration: int, state: Path, path: Path) -> None:
        """Take a snapshot's fingerprints now, if the run was killed before it had saved them."""
        if str(iteration) not in self.snapshots:
            self.add(iteration, state)
            self.save(path)

    def damaged(self, iteration: int, state: Path) -> Path | None:
        """The file of a snapshot that is not what was written, as far as that is known."""
        for kind, expected in self.snapshots.get(str(iteration), {}).items():
            path = state.with_suffix(f".{kind}")
            if sha256_of(path) != expected:
                return path
        return None

    def up_to(self, iteration: int) -> dict[str, dict[str, str]]:
        """The snapshots that a run keeps which continues from `iteration`."""
        return {k: v for k, v in self.snapshots.items() if int(k) <= iteration}

    def save(self, path: Path) -> None:
        content = {"settings": self.settings, "snapshots": self.snapshots}
        write_text(path, json.dumps(content | {"sha256": sha256_of_json(content)}, indent=1) + "\n")


def read(path: Path, warn: bool = True) -> RunRecord:
    """The record at `path`; an empty one, with a warning if that is wanted, when it is damaged."""
    try:
        content = json.loads(read_text(path))
        if content.pop("sha256") == sha256_of_json(content):
            return RunRecord(**content)
    except FileNotFoundError:
        return RunRecord()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    if warn:
        logger.warning(
            "%s: is damaged; whether the snapshots are whole is judged by their form alone", path
        )
    return RunRecord()
