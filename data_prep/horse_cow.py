"""Horse-Cow parsing: PASCAL VOC 2010 photos with the parts of PASCAL-Part, one animal per example.

The part masks of an animal are merged to head, body, leg and tail, and the photo is cropped around
it. Which instances the paper's 294 + 227 are was never published: either the user gives lists, or
every animal of some size is taken and split by a hash of its photo's name.

Already merged label maps are read as well: a PNG of ids, or a .mat that holds one array of ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.images import photo_size, read_label, read_photo
from lglstm.common.labels import IGNORE, label_set
from lglstm.data_prep.limits import LIMITS, Limits
from lglstm.data_prep.matfiles import field, load_mat, structs, text
from lglstm.data_prep.prepare import Converted, DataSet, LabeledImage, Task
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

PUBLISHED = {"train": 294, "test": 227}
"""The paper's counts; whether for each class or for both together is not said anywhere."""

HEAD, BODY, LEG, TAIL = 1, 2, 3, 4
_LEGS = [f"{side}{end}{half}leg" for side in "lr" for end in "fb" for half in "ul"]
_HOOVES = [f"{side}{end}ho" for side in "lr" for end in "fb"]
PARTS = {
    "torso": BODY,
    **dict.fromkeys([*_LEGS, *_HOOVES], LEG),
    "tail": TAIL,
    **dict.fromkeys(["head", "muzzle", "leye", "reye", "lear", "rear", "lhorn", "rhorn"], HEAD),
}
"""The class of each of PASCAL-Part's names, but for the neck: see HorseCowOptions."""

PAINTING_ORDER = (BODY, LEG, TAIL, HEAD)
"""PASCAL-Part's masks may overlap; a later class covers an earlier one."""


LARGEST_VOC = (500, 500)
"""Height and width that no photo of PASCAL VOC exceeds."""

MOST_MASKS = 1500
"""More than any photo has: up to 56 objects of up to 25 parts."""


@dataclass(frozen=True)
class HorseCowOptions:
    """What shapes the examples.

    animal: "horse" or "cow".
    neck: the class of the neck, "body" or "head".
    others: what other objects in the crop become, "ignore" (255) or "background" (0).
    context: how far the crop reaches beyond the animal on each side, in lengths of that side of its
        box; None keeps the whole photo.
    smallest: animals whose longer side has fewer pixels are left out; lists are taken as they are.
    """

    animal: str = "horse"
    neck: str = "body"
    others: str = "ignore"
    context: float | None = 0.2
    smallest: int = 50


@dataclass(frozen=True)
class Annotation:
    """One annotation to read; `instance` names one animal in it (from 1), None all of them."""

    name: str
    path: Path
    photos: Path
    options: HorseCowOptions
    instance: int | None = None


def data_set(
    source: PathLike,
    options: HorseCowOptions = HorseCowOptions(),
    annotations: PathLike | None = None,
    lists: Mapping[str, PathLike] | None = None,
) -> DataSet:
    """Describe the set of one kind of animal below the folder `source`.

    source: has JPEGImages and Annotations_Part somewhere in it.
    annotations: the folder of PASCAL-Part or of merged label maps, when it is elsewhere.
    lists: split → file of ids, of a photo (2008_000008) or of an animal in it (2008_000008_2).
    """
    photos = find_folder(source, "JPEGImages")
    folder = annotations or find_folder(source, "Annotations_Part")
    files = files_by_stem(folder, (".mat", ".png"))
    annotated = {name: Annotation(name, path, photos, options) for name, path in files.items()}
    if lists:
        options = HorseCowOptions(**{**asdict(options), "smallest": 0})
        splits = read_splits(lists, lambda name: _find(name, files)[0] in files, folder)
        annotated = {name: _listed(name, files, photos, options) for name in splits}
    else:
        share = PUBLISHED["train"] / sum(PUBLISHED.values())
        splits = {name: "train" if name_hash(name) < share else "test" for name in files}

    def tasks() -> Iterator[Task]:
        for name, annotation in annotated.items():
            photo = photo_in(annotation.photos, annotation.name)
            yield Task(name, annotation, stamp(annotation.path, photo))

    return DataSet(
        name="horse-cow",
        labels=label_set(options.animal),
        splits=splits,
        tasks=tasks,
        convert=convert,
        settings={**asdict(options), "lists": sorted(lists or ())},
        published=PUBLISHED,
        notes=("the paper does not say whether its counts are for each class or for both together",)
        + (() if lists else ("the choice and split of the animals are ours: docs/data.md",)),
    )


def _find(name: str, files: Mapping[str, Path]) -> tuple[str, int | None]:
    """Split an id into the name of its annotation and the number of the animal, if it has one."""
    stem, _, number = name.rpartition("_")
    if name not in files and stem in files and number.isdecimal():
        return stem, int(number)
    return name, None


def _listed(
    name: str, files: Mapping[str, Path], photos: Path, options: HorseCowOptions
) -> Annotation:
    stem, instance = _find(name, files)
    return Annotation(stem, files[stem], photos, options, instance)


def convert(annotation: Annotation) -> Converted:
    """Turn one annotation into an example per animal of the wanted kind."""
    counts: Counter[str] = Counter()
    examples = []
    photo = None
    for name, label in _label_maps(annotation, counts):
        box = _box(label.own)
        smallest = max(annotation.options.smallest, 1)
        if box is None or max(box[2] - box[0], box[3] - box[1]) < smallest:
            counts[f"animals smaller than {smallest} pixels, left out"] += 1
            continue
        if photo is None:
            photo = read_photo(find_photo(annotation.photos, annotation.name))
        _check_size(annotation, label.full.shape, photo.shape[:2])
        window = _window(box, label.full.shape, annotation.options.context)
        examples.append(LabeledImage(name, photo[window], label.full[window]))
    return Converted(examples, counts)


# ---------------------------------------------------------------- label maps


@dataclass(frozen=True)
class LabelMaps:
    """(H, W) uint8 ids: of the animal alone, and with what is around it marked as unknown."""

    own: np.ndarray
    full: np.ndarray


def _label_maps(annotation: Annotation, counts: Counter[str]) -> Iterator[tuple[str, LabelMaps]]:
    """Yield name and label maps of every wanted animal in an annotation."""
    path = annotation.path
    if path.suffix == ".png":
        label = read_label(path, label_set(annotation.options.animal).num_classes)
        yield annotation.name, LabelMaps(label, label)
        return
    content = load_mat(path, limits=_limits(annotation))
    if "anno" not in content:
        label = _merged(content, path, label_set(annotation.options.animal).num_classes)
        yield annotation.name, LabelMaps(label, label)
        return
    yield from _animals(annotation, structs(content["anno"], "anno", path), counts)


def _limits(annotation: Annotation) -> Limits:
    """What can be in an annotation: up to MOST_MASKS masks as large as the photo."""
    try:
        height, width = photo_size(find_photo(annotation.photos, annotation.name))
    except InputError:  # whoever needs the photo will say what is wrong with it
        height, width = LARGEST_VOC
    mask = height * width * np.dtype(np.float64).itemsize
    return Limits(min(mask, LIMITS.value), min(mask * MOST_MASKS, LIMITS.total))


def _animals(
    annotation: Annotation, anno: list[dict[str, Any]], counts: Counter[str]
) -> Iterator[tuple[str, LabelMaps]]:
    """Yield the wanted animals of PASCAL-Part's `anno` struct."""
    path, options = annotation.path, annotation.options
    if not anno:
        raise InputError(f"{path}: 'anno' is empty; fetch the file again")
    objects = structs(field(anno[0], "objects", path), "anno.objects", path)
    if annotation.instance is not None and not 1 <= annotation.instance <= len(objects):
        raise InputError(
            f"{path}: has {len(objects)} objects, so there is no {annotation.instance}"
        )
    masks = [_mask(field(thing, "mask", path), path) for thing in objects]
    for k, thing in enumerate(objects):
        if annotation.instance not in (None, k + 1) or text(thing, "class", path) != options.animal:
            continue
        parts = structs(field(thing, "parts", path), "anno.objects.parts", path)
        if not parts:
            counts["animals without part masks, left out"] += 1
            continue
        own = _merge(parts, masks[k], options.neck, path)
        full = own.copy()
        if options.others == "ignore":
            for other in masks[:k] + masks[k + 1 :]:
                _check_masks(other, own, path)
                full[other & (own == 0)] = IGNORE
        yield f"{annotation.name}_{k + 1}", LabelMaps(own, full)


def _merge(parts: list[dict[str, Any]], whole: np.ndarray, neck: str, path: Path) -> np.ndarray:
    """Merge part masks to classes; what belongs to the animal but to no part becomes 255."""
    label = np.where(whole, np.uint8(IGNORE), np.uint8(0))
    classes = {**PARTS, "neck": {"body": BODY, "head": HEAD}[neck]}
    named = [(text(p, "part_name", path), _mask(field(p, "mask", path), path)) for p in parts]
    for name, mask in named:
        if name not in classes:
            raise InputError(f"{path}: '{name}' is not a part of a horse or cow in PASCAL-Part")
        _check_masks(mask, whole, path)
    for painted in PAINTING_ORDER:
        for name, mask in named:
            if classes[name] == painted:
                label[mask] = painted
    return label


def _merged(content: dict[str, Any], path: Path, num_classes: int) -> np.ndarray:
    """Return the one label map in a .mat that is not PASCAL-Part's."""
    arrays = [v for v in content.values() if isinstance(v, np.ndarray) and min(v.shape) > 1]
    if len(arrays) != 1 or arrays[0].ndim != 2 or arrays[0].dtype.kind not in "buif":
        raise InputError(
            f"{path}: holds neither PASCAL-Part's 'anno' nor one array of ids (found: "
            f"{', '.join(content) or 'nothing'}); give the folder Annotations_Part"
        )
    ids = arrays[0]
    if not np.isin(ids, [*range(num_classes), IGNORE]).all():
        raise InputError(f"{path}: has ids other than 0 to {num_classes - 1} and {IGNORE}")
    return ids.astype(np.uint8)


def _mask(value: Any, path: Path) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind not in "buif":
        raise InputError(f"{path}: a mask is not a 2-D array; fetch the file again")
    return value > 0


def _check_masks(mask: np.ndarray, other: np.ndarray, path: Path) -> None:
    if mask.shape != other.shape:
        raise InputError(f"{path}: its masks differ in size; fetch the file again")


def _check_size(annotation: Annotation, label: tuple[int, ...], photo: tuple[int, ...]) -> None:
    if label != photo:
        raise InputError(
            f"{annotation.path}: is {label[1]} × {label[0]} pixels, its photo "
            f"{photo[1]} × {photo[0]}; check that both are of the same release"
        )


def _box(label: np.ndarray) -> tuple[int, int, int, int] | None:
    """Return (top, left, bottom, right) around all that is not background, or None."""
    rows, columns = np.flatnonzero(label.any(1)), np.flatnonzero(label.any(0))
    if not len(rows):
        return None
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _window(
    box: tuple[int, int, int, int], shape: tuple[int, ...], context: float | None
) -> tuple[slice, slice]:
    """Return the crop around a box (top, left, bottom, right), within the photo."""
    if context is None:
        return slice(None), slice(None)
    slices = []
    for low, high, size in ((box[0], box[2], shape[0]), (box[1], box[3], shape[1])):
        more = round(context * (high - low))
        slices.append(slice(max(0, low - more), min(size, high + more)))
    return slices[0], slices[1]
