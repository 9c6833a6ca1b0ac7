"""ATR (Liang et al., 2015): the archive `humanparsing` → photos and 18-label maps.

No official split exists. Without lists, the names in the order of their hash are dealt out in the
paper's proportions, 1,000 test, 700 validation, 6,000 training. All `fash_` photos, which are those
of Fashionista, come first and so into the test part: which of them are Fashionista's own 229 test
photos is not recorded in their names, and none of those may be trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lglstm.common.images import read_pair
from lglstm.common.labels import label_set
from lglstm.data_prep.prepare import Converted, DataSet, LabeledImage, Task
from lglstm.data_prep.sources import (
    PathLike,
    files_by_stem,
    find_folder,
    find_photo,
    name_hash,
    read_splits,
)

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


@dataclass(frozen=True)
class LabelFile:
    """One label map and the folder of its photo."""

    path: Path
    photos: Path


def data_set(
    source: PathLike, more: bool = False, lists: Mapping[str, PathLike] | None = None
) -> DataSet:
    """Describe the set in the folder `source`, which has JPEGImages and SegmentationClassAug in it.

    more: add the `dataset10k_` photos to the training part.
    lists: split → file of names, instead of the split by hash.
    """
    photos = find_folder(source, "JPEGImages")
    folder = find_folder(source, "SegmentationClassAug")
    labels = files_by_stem(folder, (".png",))
    known = labels.__contains__
    splits = read_splits(lists, known, folder) if lists else split(list(labels), more)

    def tasks() -> Iterator[Task]:
        return (Task(name, LabelFile(labels[name], photos)) for name in splits)

    return DataSet(
        name="atr",
        labels=label_set("atr"),
        splits=splits,
        tasks=tasks,
        convert=convert,
        settings={"more": more, "lists": sorted(lists or ())},
        published=PUBLISHED,
        notes=(*_prefix_notes(labels), *(() if lists else _split_notes(more))),
    )


def convert(label_file: LabelFile) -> Converted:
    """Check one pair and give it on; a JPEG is kept as it is."""
    path = find_photo(label_file.photos, label_file.path.stem)
    photo, label = read_pair(path, label_file.path, label_set("atr").num_classes)
    image = path.read_bytes() if path.suffix.lower() in (".jpg", ".jpeg") else photo
    return Converted([LabeledImage(label_file.path.stem, image, label)])


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
