"""ATR (Liang et al., 2015): the archive `humanparsing` → photos and 18-label maps.

No official split exists. Without lists, the names in the order of their hash are dealt out in the
paper's proportions, 1,000 test, 700 validation, 6,000 training. All `fash_` photos, which are those
of Fashionista, come first and so into the test part: which of them are Fashionista's own 229 test
photos is not recorded in their names, and none of those may be trained on. Lists that train on
`fash_` photos need `without`, which finds the 229 by what they show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from lglstm.common.hashing import sha256_of
from lglstm.common.images import read_pair
from lglstm.common.labels import label_set
from lglstm.data_prep.prepare import Converted, DataSet, LabeledImage, Task
from lglstm.data_prep.same_photo import is_one_of, thumbnails
from lglstm.data_prep.sources import (
    PathLike,
    files_by_stem,
    find_folder,
    find_photo,
    name_hash,
    photo_in,
    read_splits,
    stamp,
)
from lglstm.layers.seg_list import read_list

PUBLISHED = {"train": 6000, "val": 700, "test": 1000}

PREFIXES = {
    "dataset10k": 10_003,
    "fash": 685,
    "2500": 2476,
    "4565": 3302,
    "997": 805,
    "Multi": 435,
}
"""Pairs in the published archive by the prefix of their names."""

MORE = "dataset10k"
"""The prefix of the 10,000 photos that were added later; always training data."""

FASHIONISTA = "fash"

LEFT_OUT = "pairs left out: their photos are test photos of the set given with --without"


@dataclass(frozen=True)
class LabelFile:
    """One label map, the folder of its photo, and the list of the photos that it must not show."""

    path: Path
    photos: Path
    without: Path | None = None


def data_set(
    source: PathLike,
    more: bool = False,
    lists: Mapping[str, PathLike] | None = None,
    without: PathLike | None = None,
) -> DataSet:
    """Describe the set in the folder `source`, which has JPEGImages and SegmentationClassAug in it.

    more: add the `dataset10k_` photos to the training part.
    lists: split → file of names, instead of the split by hash.
    without: a prepared set, Fashionista's; what shows one of its test photos is left out of the
        training and validation parts, whatever its name (same_photo.py).
    """
    photos = find_folder(source, "JPEGImages")
    folder = find_folder(source, "SegmentationClassAug")
    labels = files_by_stem(folder, (".png",))
    known = labels.__contains__
    splits = read_splits(lists, known, folder) if lists else split(list(labels), more)

    held_out = Path(without, "test.txt").resolve() if without else None
    if held_out:
        read_list(held_out)  # an error in it is told before anything is prepared

    def tasks() -> Iterator[Task]:
        for name, part in splits.items():
            tested_on = held_out if part != "test" else None
            path = labels[name]
            files = stamp(path, photo_in(photos, path.stem))
            yield Task(name, LabelFile(path, photos, tested_on), files)

    return DataSet(
        name="atr",
        labels=label_set("atr"),
        splits=splits,
        tasks=tasks,
        convert=convert,
        settings={
            "more": more,
            "lists": sorted(lists or ()),
            **({"without": sha256_of(held_out)} if held_out else {}),
        },
        published=PUBLISHED,
        notes=(
            *_prefix_notes(labels),
            *(() if lists else _split_notes(more)),
            *_fashionista_notes(splits, held_out),
        ),
    )


def convert(label_file: LabelFile) -> Converted:
    """Check one pair and give it on; a JPEG is kept as it is."""
    path = find_photo(label_file.photos, label_file.path.stem)
    photo, label = read_pair(path, label_file.path, label_set("atr").num_classes)
    if label_file.without and is_one_of(photo, _test_thumbnails(label_file.without)):
        return Converted([], {LEFT_OUT: 1})
    image = path.read_bytes() if path.suffix.lower() in (".jpg", ".jpeg") else photo
    return Converted([LabeledImage(label_file.path.stem, image, label)])


@cache
def _test_thumbnails(test_list: Path) -> np.ndarray:
    """The thumbnails of a list's photos, made once in each process."""
    return thumbnails(example.photo for example in read_list(test_list))


def split(names: list[str], more: bool) -> dict[str, str]:
    """Return name → split in the paper's proportions, by the hash of the names alone.

    With all names of the archive the parts have exactly the paper's sizes, and the few names left
    over are not used.
    """
    ranked = sorted(
        (name for name in names if prefix(name) != MORE),
        key=lambda name: (prefix(name) != FASHIONISTA, name_hash(name)),
    )
    share = min(1.0, len(ranked) / sum(PUBLISHED.values()))
    splits: dict[str, str] = {}
    start = 0
    for part in ("test", "val", "train"):
        end = start + round(share * PUBLISHED[part])
        splits.update(dict.fromkeys(ranked[start:end], part))
        start = end
    if more:
        splits.update(dict.fromkeys(sorted(n for n in names if prefix(n) == MORE), "train"))
    return splits


def prefix(name: str) -> str:
    """Return what comes before the first underscore: the collection a photo comes from."""
    return name.partition("_")[0]


def _prefix_notes(names: Mapping[str, Path]) -> Iterator[str]:
    counts = Counter(map(prefix, names))
    for group in sorted({*PREFIXES, *counts}):
        expected = PREFIXES.get(group, 0)
        same = "as published" if counts[group] == expected else f"published: {expected:,}"
        yield f"{counts[group]:,} pairs '{group}_' in the source ({same})"


def _split_notes(more: bool) -> tuple[str, ...]:
    added = ("all dataset10k_ photos are in the training part",) if more else ()
    return ("the split is ours, by hash of the name; all fash_ photos are in test", *added)


def _fashionista_notes(splits: Mapping[str, str], held_out: Path | None) -> Iterator[str]:
    learned = sum(prefix(name) == FASHIONISTA and part != "test" for name, part in splits.items())
    if learned and held_out is None:
        yield (
            f"{learned:,} fash_ photos are not in test; do not test on Fashionista what learns "
            "from them, or leave its test photos out with --without"
        )
