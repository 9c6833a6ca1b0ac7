"""Results that can be gone on with: each is tied to everything that it was made from.

A label map holds the hash of its photo's content, of net, weights and labels, of the programs that
made it (`made_by`), and is used again only for the same. predictions.json in a folder says what the
folder's results were made by; those of something else are removed before one is added. Files that
this program did not make stay where they are, and links are not followed.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from PIL import Image

from lglstm import __version__
from lglstm.common.errors import InputError
from lglstm.common.files import sweep, write_text
from lglstm.common.hashing import sha256_of, sha256_of_json, unchanged
from lglstm.common.images import read_text_chunk
from lglstm.common.labels import LabelSet
from lglstm.common.text_files import read_text

if TYPE_CHECKING:
    from lglstm.evaluation.predictor import Predictor

FILE = "predictions.json"
MARK = "lglstm-made-from"
"""The text chunk of a label map's PNG."""

LABELS, OVERLAYS, SCORES, VIDEOS = "labels", "overlays", "scores", "videos"
PREDICTIONS, LAYERS = "predictions", "layers"
PARTS = (LABELS, OVERLAYS, SCORES, VIDEOS, PREDICTIONS, LAYERS)
"""The sub-folders that hold results."""

TABLE_START = ("frame", "seconds")
"""The first columns of a video's table, by which the table and its video are known as ours."""

_ROOMS = (
    "caffe_files", "common", "convert", "convert/torch", "evaluation", "evaluation/engines",
    "layers",
)  # fmt: skip
"""The folders of this package that have a part in predicting."""

_LARGEST_NOTE = 100_000
"""Bytes of a predictions.json; other programs' may be of any size."""

MadeBy = dict[str, str]

_OURS = {"deploy_sha256", "weights_sha256", "labels"}
"""What predictions.json has had since the first version."""


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


def refuse_harm(folder: Path, inputs: Iterable[Path], outputs: Sequence[Path]) -> None:
    """Raise InputError if writing the outputs would destroy what is not ours; writes nothing.

    That is an input, a file that another program wrote, or one that is reached through a link.
    folder: holds all outputs.
    """
    sources = {_identity(path): path for path in inputs}
    for output in outputs:
        identity = _identity(output)
        if identity is not None and identity in sources:
            raise InputError(
                f"{sources[identity]}: would be replaced by its own results; choose another "
                "folder with --output"
            )
    for parent in dict.fromkeys(output.parent for output in outputs):
        below = [path for path in (parent, *parent.parents) if folder in path.parents]
        if link := next((path for path in below if os.path.islink(path)), None):
            raise InputError(
                f"{link}: is a link, and results would be written where it leads; replace it by a "
                "folder or choose another folder with --output"
            )
    if foreign := next(filter(_is_foreign, outputs), None):
        raise InputError(
            f"{foreign}: was not written by this program and would be replaced; move it away or "
            "choose another folder with --output"
        )


def claim(folder: Path, made_by: MadeBy, parts: Sequence[str], files: Sequence[str] = ()) -> None:
    """Make the sub-folders `parts` of a folder ours: without results that another net made.

    made_by: of what is going to be written there. files: names of files that will be written into
    the folder itself. Only one process may be in the folder, see lglstm.common.locks. Raises
    InputError when a folder that is not ours yet has files in these places.
    """
    found = {part: _files_below(folder / part) for part in parts}
    for path in (folder, *(path for below in found.values() for path in below)):
        sweep(path)
    note = folder / FILE
    before = _read(note)
    if before == made_by:
        return
    if before is None and note.exists() and note.stat().st_size:
        raise InputError(
            f"{note}: was not written by this program; choose another folder with --output"
        )
    there = {part: [x for names in below.values() for x in names] for part, below in found.items()}
    taken = [*(folder / name for name in files), *(x for names in there.values() for x in names)]
    foreign = next(filter(os.path.lexists, taken), None)  # leftovers have just been swept
    if before is None and foreign:
        raise InputError(
            f"{folder}: already holds files that this program did not write, such as {foreign}; "
            "choose another folder with --output"
        )
    for file in _ours(folder, there):
        file.unlink(missing_ok=True)
    write_text(note, json.dumps(made_by, indent=2) + "\n")


def is_claimed(folder: Path) -> bool:
    """Whether a folder holds results of this program, in its sub-folders `PARTS`."""
    note = folder / FILE
    return note.is_file() and note.stat().st_size <= _LARGEST_NOTE and _read(note) is not None


def is_marked(path: Path) -> bool:
    """Whether a PNG says that this program made it, cut short or not."""
    return MARK in (_png_info(path) or {})


def refuse_folder(error: OSError) -> NoReturn:
    """For `os.walk`, which would leave out in silence what it may not enter."""
    raise InputError(
        f"{error.filename}: cannot be entered ({error.strerror}); change its permissions or name "
        "other folders"
    ) from error


def folder_name(name: str, *parts: object) -> str:
    """A default folder's name that no other net, weights or data have: `name`, and a hash of these.

    parts: paths and hashes; the same give the same name.
    """
    return f"{name}-{sha256_of_json([str(part) for part in parts])[:8]}"


def _files_below(folder: Path) -> dict[Path, list[Path]]:
    """A folder and all below it, with the files in each; links to folders are not followed."""
    if folder.is_symlink() or not folder.is_dir():
        return {}
    return {
        Path(path): sorted(Path(path, name) for name in names)
        for path, _, names in os.walk(folder, onerror=refuse_folder)
    }


def _ours(folder: Path, found: Mapping[str, Sequence[Path]]) -> list[Path]:
    """Those of the files in each part that this program made.

    Label maps say so themselves; overlays and scores belong to the label map of the same name,
    videos to their table. What tells comes after what it tells of: a run that is killed in between
    leaves nothing that the next one does not know.
    """
    files = {
        part: [file for file in found[part] if file.is_file() and not file.is_symlink()]
        for part in found
    }
    maps = [
        file
        for part in (LABELS, PREDICTIONS, LAYERS)
        for file in files.get(part, ())
        if file.suffix == ".png" and is_marked(file)
    ]
    marked = set(maps)
    beside = [
        file
        for part, suffix in ((OVERLAYS, ".jpg"), (SCORES, ".npy"))
        for file in files.get(part, ())
        if file.suffix == suffix and _label_map_of(folder, part, file) in marked
    ]
    videos = [
        file
        for suffix in (".mp4", ".csv")
        for file in files.get(VIDEOS, ())
        if file.suffix == suffix and _is_table(file.with_suffix(".csv"))
    ]
    return [*beside, *maps, *videos]


def _label_map_of(folder: Path, part: str, file: Path) -> Path:
    return folder / LABELS / file.relative_to(folder / part).with_suffix(".png")


def _is_foreign(output: Path) -> bool:
    """Whether another program's file is where a label map or a video is to be written.

    A PNG that nothing can be read of is what a power cut leaves of ours.
    """
    if not os.path.isfile(output):  # unlike Path's, of names that are too long, too
        return False
    if output.suffix == ".png":
        info = _png_info(output)
        return info is not None and MARK not in info
    return output.suffix in (".mp4", ".csv") and not _is_table(output.with_suffix(".csv"))


def _png_info(path: Path) -> dict | None:
    """The texts before a PNG's pixels; None if it is no PNG."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=("PNG",)) as image:
            return dict(image.info)
    except Image.DecompressionBombError:  # larger than any of ours
        return {}
    except Exception:  # Pillow raises many kinds on damaged bytes
        return None


def _is_table(path: Path) -> bool:
    """Whether a file is a table that `video.parse_video` wrote."""
    start = (",".join(TABLE_START) + ",").encode()
    try:
        with open(path, "rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    """What two names of one file have in common, links included; None without a file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _read(path: Path) -> MadeBy | None:
    """What predictions.json says; None unless a version of this program wrote it."""
    try:
        content = json.loads(read_text(path))
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
