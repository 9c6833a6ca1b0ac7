"""Results that can be gone on with: each is tied to everything that it was made from.

A label map holds the hash of its photo's content, of net, weights and labels, of the programs that
made it (`made_by`), and is used again only for the same. predictions.json in a folder says what the
folder's results were made by; those of something else are removed before one is added.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lglstm import __version__
from lglstm.common.errors import InputError
from lglstm.common.files import sweep, write_text
from lglstm.common.hashing import sha256_of, sha256_of_json, unchanged
from lglstm.common.images import read_text_chunk
from lglstm.common.labels import LabelSet

if TYPE_CHECKING:
    from lglstm.evaluation.predictor import Predictor

FILE = "predictions.json"
MARK = "lglstm-made-from"
"""The text chunk of a label map's PNG."""

_ROOMS = (
    "caffe_files", "common", "convert", "convert/torch", "evaluation", "evaluation/engines",
    "layers",
)  # fmt: skip
"""The folders of this package that have a part in predicting."""

MadeBy = dict[str, str]

_OURS = {"deploy_sha256", "weights_sha256", "labels"}
"""What predictions.json has had since the first version."""

_SUFFIXES = {".png", ".jpg", ".npy", ".mp4", ".csv"}


def made_by(predictor: Predictor, labels: LabelSet) -> MadeBy:
    """What tells the results of one net, weights, labels and programs from those of another."""
    engine = predictor.engine
    preparation = engine.preparation
    return {
        "deploy_sha256": engine.deploy_sha256,
        "weights_sha256": engine.weights_sha256,
        "labels": labels.name,
        "labels_sha256": sha256_of_json([labels.names, labels.palette.tolist()]),
        "input_size": "x".join(map(str, preparation.size)),
        "mean_bgr": " ".join(map(str, preparation.mean_bgr)),
        "scale": str(preparation.scale),
        "channel_order": preparation.channel_order,
        "layers_sha256": engine.layers_sha256,
        **engine.versions(),
        **programs(),
    }


@cache
def programs() -> MadeBy:
    """Versions of what has a say in every result: this package and its libraries."""
    import cv2
    import PIL

    return {
        "lglstm": __version__,
        "code_sha256": _code_sha256(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "pillow": PIL.__version__,
    }


def mark_of(made_by: Mapping[str, str], photo_sha256: str, output: str = "") -> str:
    """The mark of one result: of a photo, by an output of the net."""
    return sha256_of_json([dict(made_by), photo_sha256, output])


def is_current(label_map: Path, mark: str) -> bool:
    """Whether a label map is whole and has this mark."""
    return bool(mark) and read_text_chunk(label_map, MARK) == mark


def read_marked(photo: Path, read: Callable[[], np.ndarray]) -> tuple[np.ndarray, str]:
    """Read a photo by `read`; return its pixels and the SHA-256 of the file that they are from."""
    with unchanged(photo) as digest:
        pixels = read()
    return pixels, digest


def photo_sha256(photo: Path) -> str:
    """The SHA-256 of a photo; empty if it cannot be read, which its reader will say."""
    try:
        return sha256_of(photo)
    except OSError:
        return ""


def claim(folder: Path, made_by: MadeBy, parts: Sequence[str]) -> None:
    """Make the sub-folders `parts` of a folder ours: without files that another net made.

    made_by: of what is going to be written there. Only one process may be in the folder, see
    lglstm.common.locks. Raises InputError when there are files that this program did not write.
    """
    folders = [folder, *(path for part in parts for path in _folders(folder / part))]
    for path in folders:
        sweep(path)
    note = folder / FILE
    before = _read(note)
    if before == made_by:
        return
    if before is None and note.exists() and note.stat().st_size:
        raise InputError(
            f"{note}: was not written by this program; choose another folder with --output"
        )
    files = [file for path in folders[1:] for file in path.iterdir() if file.is_file()]
    stale = [file for file in files if file.suffix in _SUFFIXES]
    if before is None and files:
        raise InputError(
            f"{folder}: already holds files that this program did not write, such as {files[0]}; "
            "choose another folder with --output"
        )
    for file in stale:
        file.unlink()
    write_text(note, json.dumps(made_by, indent=2) + "\n")


def folder_name(name: str, *parts: object) -> str:
    """A default folder's name that no other net, weights or data have: `name`, and a hash of these.

    parts: paths and hashes; the same give the same name.
    """
    return f"{name}-{sha256_of_json([str(part) for part in parts])[:8]}"


def _folders(folder: Path) -> list[Path]:
    """A folder and all below it; links to folders are not followed."""
    if not folder.is_dir():
        return []
    return [folder, *(path for path in sorted(folder.rglob("*")) if path.is_dir())]


def _read(path: Path) -> MadeBy | None:
    """What predictions.json says; None unless a version of this program wrote it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.keys() >= _OURS else None


def _code_sha256() -> str:
    """Of this package's own modules that have a part in predicting, as they are now."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for room in _ROOMS:
        for path in sorted((package / room).glob("*.py")):
            digest.update(f"{room}/{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
