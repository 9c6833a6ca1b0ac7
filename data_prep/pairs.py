"""Any photos with their label maps: two folders → images, label maps and lists.

A label map belongs to the photo of the same name (and a suffix such as `_mask`, if one is given).
It holds ids (palette or gray), 0 and 255 (a mask of one object), or colors that stand for classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.hashing import sha256_of_json
from lglstm.common.images import PHOTO_SUFFIXES, check_same_size, read_label, read_photo
from lglstm.common.json_files import read_object
from lglstm.common.labels import IGNORE, LabelSet, numbered
from lglstm.common.rules import is_list, shown
from lglstm.data_prep.prepare import Converted, DataSet, LabeledImage, Task
from lglstm.data_prep.sources import PathLike, name_hash, read_splits, stamp

LABEL_SUFFIX = ".png"
UNKNOWN = "ignore"
"""In a file of colors, the name of what becomes 255."""

OBJECT = ("background", "object")
"""The classes of a mask, if nobody names them."""

_EXAMPLE = '{"background": [0, 0, 0], "leaf": [0, 128, 0], "ignore": [255, 255, 255]}'

ColorIds = tuple[tuple[int, int], ...]
"""Pairs of a color, 0xRRGGBB, and the id that it stands for."""


@dataclass(frozen=True)
class PairsOptions:
    """How the label maps are read, and how the pairs are split.

    labels: what the ids mean afterwards. binary: the maps hold 0 and 255. colors: they hold these
    colors. ignore: the id that means "unknown" in them. suffix: what a label map's name has after
    its photo's. test_share, val_share: parts of the pairs, 0 … 1; seed: which ones.
    """

    labels: LabelSet
    binary: bool = False
    colors: ColorIds = ()
    ignore: int = IGNORE
    suffix: str = ""
    test_share: float = 0.2
    val_share: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Pair:
    """A photo and its label map, and how to read that."""

    name: str
    photo: Path
    label: Path
    options: PairsOptions


def data_set(
    images: PathLike,
    labels: PathLike,
    options: PairsOptions,
    lists: Mapping[str, PathLike] | None = None,
) -> DataSet:
    """Describe the set of the photos in one folder and the label maps in another (or the same).

    lists: split → file of names, instead of the split by hash. Photos without a label map are left
    out; raises InputError for a label map without a photo, and for two photos of one name.
    """
    maps = _label_maps(Path(labels), options.suffix)
    photos = _photos(Path(images), set(maps.values()))
    if lonely := [name for name in maps if name not in photos]:
        raise InputError(
            f"{maps[lonely[0]]}: there is no photo {lonely[0]} in {images} for it, and for "
            f"{len(lonely) - 1} others; add the photos, or say with --suffix what the names of the "
            "label maps end with"
        )
    known = maps.__contains__
    splits = read_splits(lists, known, Path(labels)) if lists else split(list(maps), options)

    def tasks() -> Iterator[Task]:
        for name in splits:
            pair = Pair(name, photos[name], maps[name], options)
            yield Task(name, pair, stamp(pair.photo, pair.label))

    left_out = len(photos) - len(maps)
    return DataSet(
        name="pairs",
        labels=options.labels,
        splits=splits,
        tasks=tasks,
        convert=convert,
        settings={
            "label_set_sha256": sha256_of_json(options.labels.to_json()),
            "binary": options.binary,
            "colors": list(options.colors),
            "ignore": options.ignore,
            "suffix": options.suffix,
            "lists": sorted(lists or ()),
        },
        notes=(f"{left_out} photos have no label map and are left out",) if left_out else (),
    )


def convert(pair: Pair) -> Converted:
    """Read one pair; a JPEG is kept as it is."""
    photo = read_photo(pair.photo)
    ids = read_ids(pair.label, pair.options)
    check_same_size(pair.photo, photo, pair.label, ids)
    is_jpeg = pair.photo.suffix.lower() in (".jpg", ".jpeg")
    image = pair.photo.read_bytes() if is_jpeg else photo
    return Converted([LabeledImage(pair.name, image, ids)])


def split(names: Sequence[str], options: PairsOptions) -> dict[str, str]:
    """Return name → split, in the order of the names; the same names and seed give the same.

    Of each part that is asked for there is at least one. Raises InputError for too few names.
    """
    ranked = sorted(names, key=lambda name: name_hash(f"{options.seed} {name}"))
    shares = {"test": options.test_share, "val": options.val_share}
    counts = {part: max(1, round(share * len(names))) for part, share in shares.items() if share}
    if sum(counts.values()) >= len(names):
        raise InputError(
            f"{len(names)} pairs are too few to keep {' and '.join(counts)} apart; add pairs, or "
            "make those parts smaller"
        )
    parts: dict[str, str] = {}
    for part, count in counts.items():
        parts |= dict.fromkeys(ranked[len(parts) : len(parts) + count], part)
    return {name: parts.get(name, "train") for name in names}


# ---------------------------------------------------------------- files


def _label_maps(folder: Path, suffix: str) -> dict[str, Path]:
    """The label maps in a folder by the names of their photos."""
    ending = suffix + LABEL_SUFFIX
    found = {name[: -len(ending)]: folder / name for name in _names(folder, (ending,))}
    if not found:
        raise InputError(f"{folder}: has no label map in it, a file whose name ends in {ending}")
    return found


def _photos(folder: Path, label_maps: set[Path]) -> dict[str, Path]:
    """The photos in a folder by their names; files that are label maps are none."""
    found: dict[str, Path] = {}
    for file_name in _names(folder, PHOTO_SUFFIXES):
        path = folder / file_name
        if path in label_maps:
            continue
        if path.stem in found:
            raise InputError(
                f"{folder}: {found[path.stem].name} and {file_name} have the same name but for the "
                "suffix; rename one, or move the label maps into a folder of their own"
            )
        found[path.stem] = path
    return found


def _names(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """The files in a folder that end in one of these, in whatever case; not hidden ones."""
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; give one of photos and one of label maps")
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.name.lower().endswith(tuple(suffix.lower() for suffix in suffixes))
        and not entry.name.startswith(".")
    )


# ---------------------------------------------------------------- label maps


def read_ids(path: Path, options: PairsOptions) -> np.ndarray:
    """Return (H, W) uint8 ids, 255 where unknown, of a label map in the form that `options` say."""
    if options.colors:
        return _from_colors(path, options.colors)
    if options.binary:
        return _from_mask(path, options.ignore)
    ids = read_label(path, options.labels.num_classes, options.ignore)
    ids[ids == options.ignore] = IGNORE
    return ids


def _from_mask(path: Path, ignore: int) -> np.ndarray:
    """The ids of a mask: 0 stays 0, what is marked (by 255, or by 1) becomes 1."""
    values = _gray(path)
    known = np.ones_like(values, bool) if ignore == IGNORE else values != ignore
    found = np.unique(values[known]).tolist()
    if not (set(found) <= {0, 255} or set(found) <= {0, 1}):
        others = ", ".join(str(value) for value in found if value not in (0, 255))
        raise InputError(
            f"{path}: is not a mask of 0 and 255; it also has {others:.40}: save it without "
            "anti-aliasing, or leave --binary out if these are ids"
        )
    return np.where(known, values > 0, IGNORE).astype(np.uint8)


def _gray(path: Path) -> np.ndarray:
    """(H, W) values of a mask, which may be stored as a color picture of grays."""
    try:
        return read_label(path)
    except InputError:
        blue_green_red = read_photo(path)
        if (blue_green_red == blue_green_red[:, :, :1]).all():
            return blue_green_red[:, :, 0]
        raise


def _from_colors(path: Path, colors: ColorIds) -> np.ndarray:
    """The ids that the colors of a label map stand for."""
    blue, green, red = np.moveaxis(read_photo(path).astype(np.uint32), 2, 0)
    codes = red << 16 | green << 8 | blue
    found, places = np.unique(codes, return_inverse=True)
    ids = dict(colors)
    unknown = [code for code in found.tolist() if code not in ids]
    if unknown:
        pixels = np.isin(codes, unknown).sum()
        raise InputError(
            f"{path}: {pixels:,} of its pixels have colors that --colors does not name, such as "
            f"{_triple(unknown[0])}; add them to that file, or save the label map without "
            "anti-aliasing"
        )
    return np.array([ids[code] for code in found.tolist()], np.uint8)[places].reshape(codes.shape)


def _triple(code: int) -> list[int]:
    return [code >> 16, code >> 8 & 255, code & 255]


def classes_of(
    labels: LabelSet | None, count: int | None, binary: bool, colors: Path | None
) -> tuple[LabelSet, ColorIds]:
    """Return what the ids mean, and color → id, from whatever says it.

    labels: given by name or file. count: of classes without names. Raises InputError when nothing
    says it, or when two things contradict each other.
    """
    if count and (labels or colors or binary):
        raise InputError("--classes names nothing; leave it out where classes have names")
    if binary and colors:
        raise InputError("--binary and --colors exclude each other; leave one out")
    if colors:
        return read_colors(colors, labels)
    if binary:
        mask = LabelSet.from_json({"name": "mask", "names": list(OBJECT)}, "--binary")
        labels = labels or mask
        if labels.num_classes != mask.num_classes:
            raise InputError(
                f"--binary has 2 classes, but the label set {labels.name} has {labels.num_classes}"
            )
    labels = labels or (numbered(count) if count else None)
    if labels is None:
        raise InputError("say what the ids mean: --labels, --classes, --binary or --colors")
    return labels, ()


def read_colors(path: Path, labels: LabelSet | None) -> tuple[LabelSet, ColorIds]:
    """Read a JSON file of the color of each class; return the label set and color → id.

    labels: the set that the names are from; without, the names make one, in their order. The name
    "ignore" is of the color that becomes 255. Raises InputError.
    """
    given = read_object(path, _EXAMPLE)
    for name, color in given.items():
        if not is_list(color, lambda value: type(value) is int and 0 <= value <= 255, 3):
            raise InputError(
                f"{path}: the color of {shown(name)} is {shown(color)}; it must be "
                "[red, green, blue], whole numbers from 0 to 255"
            )
    if labels is None:
        names = [name for name in given if name != UNKNOWN]
        labels = LabelSet.from_json({"name": path.stem, "names": names}, str(path))
    ids = {name: k for k, name in enumerate(labels.names)} | {UNKNOWN: IGNORE}
    by_color: dict[int, int] = {}
    for name, (red, green, blue) in given.items():
        code = red << 16 | green << 8 | blue
        if name not in ids:
            raise InputError(f"{path}: {shown(name)} is no class of the label set {labels.name}")
        if code in by_color:
            raise InputError(f"{path}: two classes have the color {_triple(code)}; correct one")
        by_color[code] = ids[name]
    return labels, tuple(by_color.items())
