"""Folders of predicted label maps, one palette PNG per image: ours, resumable, and other programs'.

OUT/predictions.json            which model and weights made them
OUT/predictions/<name>.png      the prediction
OUT/layers/score1/<name>.png    what LG-LSTM layer 1 alone would say, with --all-layers
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from lglstm.common import preprocessing
from lglstm.common.errors import InputError
from lglstm.common.files import write_text
from lglstm.common.images import read_pair, write_label
from lglstm.common.labels import LabelSet
from lglstm.evaluation import nets
from lglstm.evaluation.inference import Parser
from lglstm.evaluation.samples import Sample

MANIFEST = "predictions.json"

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


def no_progress(done: int, total: int) -> None:
    """For callers that show none."""


def folder_of(out: Path, output: str) -> Path:
    """Where the label maps of one output of the net are."""
    return out / "predictions" if output == nets.OUTPUT else out / "layers" / output


def png_of(folder: Path, sample: Sample) -> Path:
    return folder / f"{sample.name}.png"


def predict(
    parser: Parser,
    samples: Sequence[Sample],
    labels: LabelSet,
    out: Path,
    progress: Progress = no_progress,
) -> None:
    """Write the label map of every sample below `out`; those that are there already stay.

    What another model or other weights left in `out` is removed first. Photo and truth are read
    together, so that a truth of another size or with other classes stops the run at its image.
    """
    claim(out, manifest(parser, labels), ("predictions", "layers"))
    folders = {output: folder_of(out, output) for output in parser.outputs}
    pending = [
        sample
        for sample in samples
        if not all(is_current(png_of(f, sample), sample.photo) for f in folders.values())
    ]
    done, total = len(samples) - len(pending), len(samples)
    progress(done, total)

    def read(sample: Sample) -> np.ndarray:
        return read_pair(sample.photo, sample.label, labels.num_classes)[0]

    def finish(sample: Sample, photo: np.ndarray, scores: dict[str, np.ndarray]) -> None:
        for output, folder in folders.items():
            ids = preprocessing.to_label_map(scores[output], photo.shape[:2])
            write_label(png_of(folder, sample), ids, labels.palette)

    for _, future in parser.map(pending, read, finish):
        future.result()
        done += 1
        progress(done, total)


def manifest(parser: Parser, labels: LabelSet) -> dict[str, str]:
    """What tells one set of predictions from another."""
    return {
        "deploy_sha256": sha256(parser.deploy),
        "weights_sha256": sha256(parser.weights_path),
        "labels": labels.name,
    }


def claim(out: Path, made_by: dict[str, str], parts: Sequence[str]) -> None:
    """Make the folders `parts` of `out` ours: without files that anything but `made_by` made.

    Raises InputError when there are files that this program did not write.
    """
    note = out / MANIFEST
    before = _read_manifest(note)
    if before == made_by:
        return
    stale = [file for part in parts for file in (out / part).rglob("*") if file.is_file()]
    if stale and before is None:
        raise InputError(
            f"{out}: already holds files that this program did not write, such as {stale[0]}; "
            "choose another folder with --out"
        )
    for file in stale:
        file.unlink()
    write_text(note, json.dumps(made_by, indent=2) + "\n")


def is_current(result: Path, photo: Path) -> bool:
    """Whether a result is there and no older than its photo."""
    try:
        return result.stat().st_mtime >= photo.stat().st_mtime
    except OSError:
        return False


def find(folder: Path, samples: Sequence[Sample]) -> list[Path]:
    """The label map of every sample in a folder that any program may have written.

    Looked for are <name>.png, the file name of the true label map, and the photo's name with .png.
    Raises InputError unless every sample has one: a score over fewer images is no score.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; give the folder that holds the label maps")
    found = [next(filter(Path.is_file, _candidates(folder, s)), None) for s in samples]
    missing = [s for s, path in zip(samples, found, strict=True) if path is None]
    if len(missing) == len(samples):
        raise InputError(
            f"{folder}: no label map belongs to an image of the list, such as "
            f"{samples[0].name}.png for {samples[0].photo.name}; give the folder that holds them, "
            "named like the photos"
        )
    if missing:
        raise InputError(
            f"{folder}: label maps of {len(missing)} of the {len(samples)} images are missing, "
            f"first {missing[0].name}.png; predict all images of the list"
        )
    return [path for path in found if path is not None]


def sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _candidates(folder: Path, sample: Sample) -> Iterable[Path]:
    yield png_of(folder, sample)
    yield folder / sample.label.name
    yield folder / f"{sample.photo.stem}.png"


def _read_manifest(path: Path) -> dict[str, str] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
