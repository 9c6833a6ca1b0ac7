"""The list of a test set: which photo belongs to which label map, and its name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lglstm.common.errors import InputError
from lglstm.layers.seg_list import read_list


@dataclass(frozen=True)
class ListedImage:
    """One line of a list.

    name: the photo's path below the folder that all photos of the list share, without suffix; its
    prediction is called <name>.png.
    """

    name: str
    photo: Path
    label: Path


def read_image_list(path: str | Path, root: str | Path | None = None) -> list[ListedImage]:
    """Read lines of `photo label`, relative to `root` (default: the folder of the list).

    Raises InputError for an unusable list, see layers/seg_list.py, and for a photo listed twice.
    """
    examples = read_list(path, root)
    names = names_below([example.photo for example in examples])
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path}: lists {name} {count} times; list each image once")
    return [
        ListedImage(name, Path(example.photo), Path(example.label))
        for name, example in zip(names, examples, strict=True)
    ]


def names_below(photos: Sequence[str]) -> list[str]:
    """The photos' paths without suffix, below the folder that they share."""
    shared = os.path.commonpath([os.path.dirname(photo) for photo in photos])
    return [os.path.splitext(os.path.relpath(photo, shared or "."))[0] for photo in photos]
