"""What the readers share: finding folders and photos below a source, name lists, hash splits."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from lglstm.common.errors import InputError
from lglstm.common.images import PHOTO_SUFFIXES
from lglstm.common.text_files import read_text

SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
"""Of the photos in published sets."""

SEARCH_DEPTH = 3

PathLike = str | os.PathLike[str]


def find_folder(source: PathLike, name: str) -> Path:
    """Return the folder `name` at or below `source`, the least deep one; InputError if none."""
    root = Path(source)
    if not root.is_dir():
        raise InputError(
            f"{source}: is not a folder; give the folder into which you unpacked the set"
        )
    level = [root]
    for _ in range(SEARCH_DEPTH + 1):
        found = [folder for folder in level if folder.name == name]
        if found:
            return found[0]
        try:
            level = sorted(
                child for folder in level for child in folder.iterdir() if child.is_dir()
            )
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be searched ({error.strerror})") from error
    raise InputError(f"{source}: has no folder '{name}' in it; unpack the whole archive there")


def files_by_stem(folder: PathLike, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Return the files with one of `suffixes`, sorted, by name without it; InputError if none."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); check the path") from error
    found = {
        Path(name).stem: Path(folder) / name
        for name in names
        if name.endswith(suffixes) and not name.startswith(".")
    }
    if not found:
        raise InputError(
            f"{folder}: has no {' or '.join(suffixes)} file in it; unpack the whole archive there"
        )
    return found


def find_photo(folder: PathLike, stem: str) -> Path:
    """Return the photo called `stem` in a folder; InputError if there is none."""
    if path := photo_in(folder, stem):
        return path
    raise InputError(f"{folder}: has no photo '{stem}.jpg'; unpack the whole archive there")


def photo_in(folder: PathLike, stem: str) -> Path | None:
    """The photo called `stem` in a folder, if there is one."""
    paths = (Path(folder) / f"{stem}{suffix}" for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def stamp(*paths: PathLike | None) -> str:
    """Sizes and times of files, which change when a file does; a missing one adds nothing."""
    known = []
    for path in paths:
        with contextlib.suppress(OSError):
            if path is not None:
                status = os.stat(path)
                known.append(f"{status.st_size}:{status.st_mtime_ns}")
    return " ".join(known)


def read_names(path: PathLike, known: Callable[[str], bool]) -> list[str]:
    """Return the names in a list file, one per line, without folder and suffix.

    A name that is `known` may have spaces; any may be followed by a tab. PASCAL VOC's lists per
    class are understood too: there a second column of -1 leaves a name out. So are DeepLab's:
    /JPEGImages/a.jpg /SegmentationClassAug/a.png.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"{path}: cannot be read as a list of names ({reason})") from error
    kept = [line for line in lines if line.strip() and line.split()[1:2] != ["-1"]]
    names = [_name(line, known) for line in kept]
    if not names:
        raise InputError(f"{path}: names nothing; it needs one name per line")
    return names


def _name(line: str, known: Callable[[str], bool]) -> str:
    if known(whole := _stem(line.strip())):
        return whole
    return _stem(line.split("\t")[0].strip() if "\t" in line else line.split()[0])


def _stem(path: str) -> str:
    name = PurePosixPath(path)
    return name.stem if name.suffix.lower() in PHOTO_SUFFIXES else name.name


def read_splits(
    lists: Mapping[str, PathLike], known: Callable[[str], bool], folder: PathLike
) -> dict[str, str]:
    """Return name → split from one list file per split.

    Raises InputError for names that `known` refuses, saying how many and which is first, and for
    names that are listed twice.
    """
    splits: dict[str, str] = {}
    for split, path in lists.items():
        names = read_names(path, known)
        unknown = [name for name in names if not known(name)]
        if unknown:
            raise InputError(
                f"{path}: {len(unknown)} of {len(names)} names are not in {folder}, first "
                f"'{unknown[0]}'; correct the list or complete the folder"
            )
        repeated = [name for name, count in Counter(names).items() if count > 1]
        repeated += [name for name in names if name in splits]
        if repeated:
            raise InputError(f"{path}: '{repeated[0]}' is listed twice; list every name once")
        splits.update(dict.fromkeys(names, split))
    return splits


def name_hash(name: str) -> float:
    """Return a number in 0 … 1 that depends on the name alone: what our own splits go by."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8]) / 2**64
