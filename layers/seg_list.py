"""Reading a list of examples: one `image label` per line, relative to a folder."""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from typing import NamedTuple

from lglstm.common.errors import InputError
from lglstm.common.text_files import read_text


class Example(NamedTuple):
    """A line of a list: the paths of a photo and of its label map, and the line's number."""

    photo: str
    label: str
    line: int


def read_list(
    path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None
) -> list[Example]:
    """Return the examples of a list in its order; every file is known to exist.

    A line holds two paths apart by white space, or by a tab if they contain spaces; empty lines
    are skipped. `root` is the folder they start from, by default the list's own; so does a path
    with a leading slash, as in DeepLab's lists. A path that would leave the folder is refused;
    links inside it may point anywhere.
    Raises InputError that names the list, the line, the fault and the remedy.
    """
    root = Path(root) if root is not None else Path(path).parent
    examples = [
        _example(path, number, line, root)
        for number, line in enumerate(_text(path).splitlines(), 1)
        if line.strip()
    ]
    if not examples:
        raise InputError(f"{path}: is empty; it must have a line `image label` per example")
    _check_existence(path, examples)
    return examples


def _text(path: str | os.PathLike[str]) -> str:
    try:
        return read_text(path)
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such list (looked for in {Path.cwd()}); prepare the data set first, and "
            "run from the folder that the list's path starts from"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a list file") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is not UTF-8 text; name a list file, or save this one as UTF-8"
        ) from error


def _example(path: str | os.PathLike[str], number: int, line: str, root: Path) -> Example:
    names = line.strip().split("\t") if "\t" in line.strip() else line.split()
    names = [name.strip() for name in names]
    if len(names) != 2 or not all(names):
        raise InputError(
            f"{path}, line {number}: has {len(names)} entries instead of `image label`; separate "
            "the two paths by a space, or by a tab if they contain spaces"
        )
    try:
        photo, label = (_below(root, name) for name in names)
    except ValueError as error:
        raise InputError(f"{path}, line {number}: {error}") from error
    return Example(photo, label, number)


def _below(root: Path, name: str) -> str:
    """The path that a list means by `name`; ValueError if that is not below `root`."""
    if ".." in PurePath(name).parts or "\0" in name:
        raise ValueError(
            f"{name} leads outside the folder {root}; write the path relative to that folder, or "
            "set root"
        )
    below = os.path.join(root, name.lstrip("/"))
    if name.startswith("/") and not os.path.isfile(below):
        raise ValueError(
            f"{name} leads outside the folder {root}, and is not in that folder either; put the "
            f"list into the folder that has {name.lstrip('/')}, or set root to it"
        )
    return below


def _check_existence(path: str | os.PathLike[str], examples: list[Example]) -> None:
    """One stat per file, so that a long training never ends at a file that was not there."""
    missing = [
        (name, example.line)
        for example in examples
        for name in (example.photo, example.label)
        if not os.path.isfile(name)
    ]
    if missing:
        name, line = missing[0]
        others = f" (and {len(missing) - 1:,} more of the list's files)" if missing[1:] else ""
        raise InputError(
            f"{path}, line {line}: {name} does not exist{others}; prepare the data set again, or "
            "correct the list or root"
        )
