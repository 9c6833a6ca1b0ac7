"""Fashionista v0.2 (Yamaguchi et al., CVPR 2012): `fashionista_v0.2.mat` → photos and label maps.

The set names 56 garments, but neither left and right nor the face: all bare skin is one label. The
18 labels of the ATR set, on which the paper reports, therefore need the 14 annotated pose points.
No mapping was ever published; this one is ours:

- garments are grouped by GROUPS; tights and socks count as the leg and gloves as the arm, whose
  shape they show;
- a super-pixel of skin, leg or shoe belongs to the limb whose capsule (LIMBS) is nearest to it on
  average. Left and right are the person's own, as in the pose;
- a pixel of a necklace, earring or other accessory takes the class of the nearest other pixel of
  the person.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from lglstm.common.errors import InputError
from lglstm.common.images import left_orientation, upright
from lglstm.common.labels import IGNORE, label_set
from lglstm.data_prep.limits import Limits
from lglstm.data_prep.matfiles import count_structs, field, load_mat, stream_structs, structs
from lglstm.data_prep.prepare import Converted, DataSet, LabeledImage, Task
from lglstm.data_prep.sources import stamp

PUBLISHED = {"train": 456, "test": 229}

POSE = """
    right_ankle right_knee right_hip left_hip left_knee left_ankle right_hand right_elbow
    right_shoulder left_shoulder left_elbow left_hand neck head
""".split()  # noqa: SIM905

GROUPS = {
    "background": "null",
    "hat": "hat",
    "hair": "hair",
    "sunglass": "sunglasses glasses",
    "upper-clothes": "blazer t-shirt coat blouse jacket bra sweater shirt top cardigan vest cape "
    "jumper sweatshirt suit intimate bodysuit tie",
    "skirt": "skirt",
    "pants": "shorts pants jeans leggings",
    "dress": "dress romper",
    "belt": "belt",
    "bag": "bag purse wallet",
    "scarf": "scarf",
    # The rest is divided among the limbs of the pose.
    "shoe": "shoes boots heels wedges flats sandals sneakers clogs pumps loafers",
    "leg": "tights socks stockings",
    "arm": "bracelet ring watch gloves",
    "skin": "skin",
    # And this takes the class of what it is worn on.
    "surroundings": "necklace earrings accessories",
}
"""The 56 names by the class, or the part of the body, that they become."""

LIMBS = (
    ("face", "head", "neck", 0.0, 1.0, 0.20),
    ("left-arm", "left_shoulder", "left_elbow", 0.0, 1.0, 0.10),
    ("left-arm", "left_elbow", "left_hand", 0.0, 1.3, 0.10),
    ("right-arm", "right_shoulder", "right_elbow", 0.0, 1.0, 0.10),
    ("right-arm", "right_elbow", "right_hand", 0.0, 1.3, 0.10),
    ("left-leg", "left_hip", "left_knee", 0.3, 1.0, 0.12),
    ("left-leg", "left_knee", "left_ankle", 0.0, 1.2, 0.10),
    ("right-leg", "right_hip", "right_knee", 0.3, 1.0, 0.12),
    ("right-leg", "right_knee", "right_ankle", 0.0, 1.2, 0.10),
)
"""Class, the two pose points of the bone, where the limb starts and ends along it (0 … 1), and its
radius in lengths of the torso. The hand reaches beyond its point and the foot beyond the ankle;
what is bare at the hip itself is nearly always a hand that rests there."""


LARGEST_PHOTO = 16 * 600 * 400
"""Pixels; all photos of the set have 600 × 400. A small file can claim a picture that fills the
memory."""

LARGEST_RECORD = Limits(value=4 * 600 * 400, total=40 * 600 * 400)
"""Bytes of an array and of all of one photo's; photos and maps are stored as JPEG and PNG files."""

MOST_PHOTOS = 16 * sum(PUBLISHED.values())

FARTHEST = 1e6
"""A pose point farther out than this (pixels) is damage."""


@dataclass(frozen=True)
class AnnotatedPhoto:
    """One element of `truths`, as far as it is needed; still encoded."""

    where: str
    name: str
    image: bytes
    superpixel_map: bytes
    superpixel_labels: np.ndarray
    names: tuple[str, ...]
    pose: np.ndarray
    keep_56: bool


def data_set(source: str | os.PathLike[str], labels: int = 18) -> DataSet:
    """Describe the set in the file `source`, with 18 (ATR's) or all 56 labels."""
    if labels not in (18, 56):
        raise InputError(f"{labels} labels: choose 18 (those of the ATR set) or 56 (the original)")
    count = count_structs(source, "truths")
    if not count:
        raise InputError(f"{source}: 'truths' is empty; fetch the file again")
    if count > MOST_PHOTOS:
        raise InputError(
            f"{source}: claims to have {count:,} photos instead of {sum(PUBLISHED.values())}; "
            "fetch the file again"
        )
    indices = load_mat(source, "test_index", limits=LARGEST_RECORD)["test_index"]
    test = set(_numbers(indices, "test_index", source))
    if not test <= set(range(1, count + 1)):
        raise InputError(f"{source}: 'test_index' names photos beyond the last of its {count}")
    splits = {_name(k): "test" if k in test else "train" for k in range(1, count + 1)}

    def tasks() -> Iterator[Task]:
        whole = stamp(source)
        for k, record in enumerate(stream_structs(source, "truths", LARGEST_RECORD), start=1):
            yield Task(_name(k), (str(source), k, record, labels == 56), whole)

    return DataSet(
        name="fashionista",
        labels=label_set("fashionista56" if labels == 56 else "atr"),
        splits=splits,
        tasks=tasks,
        convert=convert,
        settings={"labels": labels},
        published=PUBLISHED,
        notes=() if labels == 56 else ("the 18 labels are derived from the pose: docs/data.md",),
    )


def convert(payload: tuple[str, int, dict[str, Any], bool]) -> Converted:
    """Turn one element of `truths` into its photo, unchanged, and its label map."""
    photo = _annotated_photo(*payload)
    picture = _decode(photo.image, "JPEG", "image", photo.where)
    width, height = picture.size
    superpixels = _superpixels(photo)
    if superpixels.shape != (height, width):
        raise InputError(
            f"{photo.where}: the photo is {width} × {height} and its super-pixel map "
            f"{superpixels.shape[1]} × {superpixels.shape[0]} pixels; fetch the file again"
        )
    label = labels_56(photo, superpixels) if photo.keep_56 else labels_18(photo, superpixels)
    # The photo keeps its EXIF data, by which readers will turn it; super-pixels know nothing of it.
    turned = np.asarray(upright(Image.fromarray(label), left_orientation(picture)))
    return Converted([LabeledImage(photo.name, photo.image, turned)])


def labels_56(photo: AnnotatedPhoto, superpixels: np.ndarray) -> np.ndarray:
    """Return the original labels, (H, W) uint8, in the order of the label set `fashionista56`."""
    ids = np.array([label_set("fashionista56").id_of(name) for name in photo.names], np.uint8)
    return ids[photo.superpixel_labels - 1][superpixels]


def labels_18(photo: AnnotatedPhoto, superpixels: np.ndarray) -> np.ndarray:
    """Return ATR's labels, (H, W) uint8; superpixels (H, W) counts from 0."""
    atr = label_set("atr")
    groups = [_GROUP_OF[photo.names[k - 1]] for k in photo.superpixel_labels]
    posed = np.array([group in _LIMBS_FOR for group in groups])
    distances = _limb_distances(photo.pose, superpixels, posed)
    classes = [_class(group, near) for group, near in zip(groups, distances, strict=True)]
    ids = [IGNORE if name == "surroundings" else atr.id_of(name) for name in classes]
    return _filled(np.array(ids, np.uint8)[superpixels])


_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names.split()}

_LIMBS_FOR = {
    "skin": range(len(LIMBS)),
    "arm": [k for k, limb in enumerate(LIMBS) if "arm" in limb[0]],
    "leg": [k for k, limb in enumerate(LIMBS) if "leg" in limb[0]],
    "shoe": [k for k, limb in enumerate(LIMBS) if "ankle" in limb[2]],
}
"""Which limbs (indices into LIMBS) a super-pixel of each group may belong to."""


def _class(group: str, distances: np.ndarray) -> str:
    """Return the ATR class of a super-pixel by its group and its distance to each limb."""
    if group not in _LIMBS_FOR:
        return group
    nearest = LIMBS[min(_LIMBS_FOR[group], key=lambda k: distances[k])][0]
    return nearest.replace("leg", "shoe") if group == "shoe" else nearest


def _filled(label: np.ndarray) -> np.ndarray:
    """Give every pixel of 255 the class of the nearest pixel of the person."""
    person = (label != IGNORE) & (label != 0)
    if not (label == IGNORE).any() or not person.any():
        return np.where(label == IGNORE, 0, label).astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(
        (~person).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    class_of = np.zeros(nearest.max() + 1, np.uint8)
    class_of[nearest[person]] = label[person]
    return np.where(label == IGNORE, class_of[nearest], label)


def _limb_distances(pose: np.ndarray, superpixels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the mean distance of each wanted super-pixel to each limb, (superpixels, limbs).

    pose (14, 2) in x, y. A distance is measured in pixels from the bone, less the limb's radius.
    """
    point = dict(zip(POSE, pose, strict=True))
    hips = (point["left_hip"] + point["right_hip"]) / 2
    torso = np.linalg.norm(point["neck"] - hips)
    y, x = np.nonzero(wanted[superpixels])
    owner = superpixels[y, x]
    area = np.maximum(np.bincount(owner, minlength=len(wanted)), 1)
    distances = np.empty((len(wanted), len(LIMBS)))
    for k, (_, near, far, first, last, radius) in enumerate(LIMBS):
        bone = point[far] - point[near]
        start, end = point[near] + first * bone, point[near] + last * bone
        distance = _to_segment(x, y, start, end) - radius * torso
        distances[:, k] = np.bincount(owner, distance, len(wanted)) / area
    return distances


def _to_segment(x: np.ndarray, y: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the distance of the points (x, y) to the segment from `start` to `end`."""
    along = end - start
    u, v = x - start[0], y - start[1]
    t = np.clip((u * along[0] + v * along[1]) / max(along @ along, 1e-9), 0, 1)
    return np.hypot(u - t * along[0], v - t * along[1])


# ---------------------------------------------------------------- the file's structs


def _name(number: int) -> str:
    return f"fashionista_{number:04d}"


def _numbers(value: object, what: str, where: str | os.PathLike[str]) -> list[int]:
    """Return a numeric array as a flat list of integers."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise InputError(f"{where}: '{what}' is not numeric; fetch the file again")
    flat = value.reshape(-1)
    if not np.array_equal(flat, np.rint(flat)):
        raise InputError(f"{where}: '{what}' holds numbers that are not whole; fetch it again")
    return [int(v) for v in flat]


def _annotated_photo(
    path: str, number: int, record: dict[str, Any], keep_56: bool
) -> AnnotatedPhoto:
    """Check one element of `truths` and take what is needed from it."""
    where = f"{path}, photo {number}"
    pose = structs(field(record, "pose", where), "pose", where)
    annotation = structs(field(record, "annotation", where), "annotation", where)
    if not pose or not annotation:
        raise InputError(f"{where}: has no pose or no annotation; fetch the file again")
    points = field(pose[0], "point", where)
    if not isinstance(points, np.ndarray) or points.dtype.kind not in "iuf":
        raise InputError(f"{where}: 'pose.point' is not numeric; fetch the file again")
    if points.shape != (len(POSE), 2) or not (np.abs(points) < FARTHEST).all():
        raise InputError(f"{where}: 'pose.point' is not {len(POSE)}×2 numbers; fetch it again")
    names = field(annotation[0], "labels", where)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}: 'annotation.labels' is not a list of names; fetch it again")
    unknown = [name for name in names if name not in _GROUP_OF]
    if unknown:
        raise InputError(f"{where}: '{unknown[0]}' is not one of the 56 labels of Fashionista v0.2")
    labels = _numbers(field(annotation[0], "superpixel_labels", where), "superpixel_labels", where)
    if not labels or not 1 <= min(labels) <= max(labels) <= len(names):
        raise InputError(f"{where}: 'superpixel_labels' point beyond the {len(names)} labels")
    return AnnotatedPhoto(
        where=where,
        name=_name(number),
        image=_bytes(record, "image", where),
        superpixel_map=_bytes(annotation[0], "superpixel_map", where),
        superpixel_labels=np.array(labels),
        names=tuple(names),
        pose=points.astype(float),
        keep_56=keep_56,
    )


def _bytes(record: dict[str, Any], name: str, where: str) -> bytes:
    """Return a file that is stored as an array of its bytes."""
    value = field(record, name, where)
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or not value.size:
        raise InputError(f"{where}: '{name}' does not hold the bytes of a file; fetch it again")
    return value.tobytes()


def _superpixels(photo: AnnotatedPhoto) -> np.ndarray:
    """Decode the super-pixel map, (H, W) int, counting from 0."""
    picture = _decode(photo.superpixel_map, "PNG", "superpixel_map", photo.where)
    numbers = np.asarray(picture).astype(np.int64) - 1
    count = len(photo.superpixel_labels)
    if numbers.ndim != 2 or numbers.min() < 0 or numbers.max() >= count:
        raise InputError(f"{photo.where}: 'superpixel_map' points beyond its {count} labels")
    return numbers


def _decode(data: bytes, kind: str, what: str, where: str) -> Image.Image:
    """Decode a picture whole; a damaged or enormous one raises InputError."""
    try:
        picture = Image.open(io.BytesIO(data), formats=(kind,))
        if picture.width * picture.height <= LARGEST_PHOTO:
            picture.load()
            return picture
    except Exception as error:  # Pillow's decoders raise many kinds on damaged bytes
        raise InputError(
            f"{where}: '{what}' is not a valid {kind} ({error}); fetch the file again"
        ) from error
    raise InputError(
        f"{where}: '{what}' has more than {LARGEST_PHOTO:,} pixels; fetch the file again"
    )
