"""The list of a test set: which photo belongs to which label map."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError
from common.files import inside


@dataclass(frozen=True)
class Sample:
    """One line of a list.

    name: the photo's path below what all photos of the list share, without suffix; its prediction
    is called <name>.png.
    """

    name: str
    photo: Path
    label: Path


def read_list(path: str | Path, root: str | Path | None = None) -> list[Sample]:
    """Read lines of `photo label`, relative to `root` (default: the folder of the list).

    Raises InputError for a missing or empty list, a line without a label, a file that does not
    exist, or a photo that is listed twice.
    """
    path = Path(path)
    root = path.parent if root is None else Path(root)
    pairs = [_pair(path, root, number, line) for number, line in _lines(path)]
    if not pairs:
        raise InputError(f"{path}: lists no images; write one line `photo label` per image")
    names = _names([photo for photo, _ in pairs])
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path}: lists {name} {count} times; list each image once")
    return [
        Sample(name, inside(root, photo), inside(root, label))
        for name, (photo, label) in zip(names, pairs, strict=True)
    ]


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text file"
        raise InputError(
            f"{path}: cannot be read ({reason}); give a list with one line `photo label` per image"
        ) from error
    numbered = enumerate(text.splitlines(), start=1)
    return [(number, line) for number, line in numbered if line.strip()]


def _pair(path: Path, root: Path, number: int, line: str) -> tuple[str, str]:
    fields = line.split()
    if len(fields) != 2:
        fault = "names no label map" if len(fields) == 1 else f"has {len(fields)} fields"
        raise InputError(
            f"{path}, line {number}: {fault}; write `photo label`, such as "
            "`images/a.jpg labels/a.png`"
        )
    for field in fields:
        if not (root / field).is_file():
            raise InputError(
                f"{path}, line {number}: {root / field} does not exist; correct the line, or give "
                "the folder that the paths start from with --root"
            )
    return fields[0], fields[1]


def _names(photos: list[str]) -> list[str]:
    """The photos' paths without suffix, below the folder that they share."""
    shared = os.path.commonpath([os.path.dirname(photo) for photo in photos])
    return [os.path.splitext(os.path.relpath(photo, shared or "."))[0] for photo in photos]
