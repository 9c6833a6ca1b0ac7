"""Folders of results that can be gone on with: which net, weights and labels made them.

predictions.json in a folder holds that; what something else made is removed before a file is added.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lglstm.common.errors import InputError
from lglstm.common.files import write_text
from lglstm.common.hashing import sha256_of
from lglstm.common.labels import LabelSet
from lglstm.evaluation.predictor import Predictor

FILE = "predictions.json"


def fingerprint(predictor: Predictor, labels: LabelSet) -> dict[str, str]:
    """What tells one set of predictions from another."""
    return {
        "deploy_sha256": sha256_of(predictor.deploy),
        "weights_sha256": sha256_of(predictor.weights_path),
        "labels": labels.name,
    }


def claim(folder: Path, made_by: dict[str, str], parts: Sequence[str]) -> None:
    """Make the sub-folders `parts` of a folder ours: without files that another net made.

    made_by: the `fingerprint` of the net that is going to write there.
    Raises InputError when there are files that this program did not write.
    """
    note = folder / FILE
    before = _read(note)
    if before == made_by:
        return
    stale = [file for part in parts for file in (folder / part).rglob("*") if file.is_file()]
    if stale and before is None:
        raise InputError(
            f"{folder}: already holds files that this program did not write, such as {stale[0]}; "
            "choose another folder with --output"
        )
    for file in stale:
        file.unlink()
    write_text(note, json.dumps(made_by, indent=2) + "\n")


def is_current(result: Path, photo: Path) -> bool:
    """Whether a result exists and is no older than its photo."""
    try:
        return result.stat().st_mtime >= photo.stat().st_mtime
    except OSError:
        return False


def _read(path: Path) -> dict[str, str] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
