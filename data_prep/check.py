"""What `lglstm data check` looks at: every file of a prepared set, read as training would read it.

A set is sound when every list can be read, every photo has a label map of its size with known ids,
no photo is in two lists (by name or by content), and no file is left out of the lists.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.hashing import sha256_of
from lglstm.common.images import read_pair
from lglstm.common.labels import IGNORE, LabelSet, label_set
from lglstm.common.parallel import stream
from lglstm.common.sheets import SheetRow, write_sheet
from lglstm.data_prep.prepare import SPLITS, SUMMARY
from lglstm.layers.seg_list import Example, read_list

SAMPLES = 12


@dataclass(frozen=True)
class ExampleCheck:
    """What one example has: pixels per id (256,), a hash of the photo's pixels, or an error."""

    pixels: np.ndarray
    photo: str
    error: str = ""


def check(
    root: Path,
    labels: LabelSet | None = None,
    *,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Read the whole prepared set below `root`; return the findings, ready for JSON.

    labels: the label set, by default the one that dataset.json names.
    The result has `ok`, `problems` (sentences), `lists` (examples and SHA-256 of each) and
    `classes` (pixels and images per split). Raises InputError when there is no such set.
    """
    labels = labels or label_set_of(root)
    lists = {split: root / f"{split}.txt" for split in SPLITS if (root / f"{split}.txt").is_file()}
    if not lists:
        raise InputError(f"{root}: has no train.txt, val.txt or test.txt; prepare the set again")
    problems: list[str] = []
    examples = {split: _listed(path, problems) for split, path in lists.items()}
    checked = _check_examples(examples, labels, workers, on_progress)
    problems += [result.error for result in checked.values() if result.error]
    problems += _twice(examples, checked) + _unlisted(root, examples)
    return {
        "set": str(root),
        "label_set": labels.name,
        "ok": not problems,
        "problems": problems,
        "lists": {split: _describe(path, examples[split]) for split, path in lists.items()},
        "classes": _per_class(examples, checked, labels),
    }


def label_set_of(root: Path) -> LabelSet:
    """Return the label set that a prepared set's dataset.json names."""
    path = root / SUMMARY
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["label_set"]
    except FileNotFoundError as error:
        raise InputError(
            f"{root}: has no {SUMMARY}; prepare the set to its end, or name its --label-set"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is not readable; name the --label-set") from error
    return label_set(str(name))


def write_samples(path: Path, root: Path, labels: LabelSet, count: int = SAMPLES) -> None:
    """Draw examples from all over the lists, photo and label map side by side."""
    rows = []
    for split in SPLITS:
        if (root / f"{split}.txt").is_file():
            examples = read_list(root / f"{split}.txt")
            for k in np.linspace(0, len(examples) - 1, min(count, len(examples))).astype(int):
                pair = read_pair(examples[k].photo, examples[k].label, labels.num_classes)
                rows.append(SheetRow(pair, f"{split}: {Path(examples[k].photo).stem}"))
    write_sheet(path, rows, ("photo", "labels"), labels, title=str(root), columns=4, height=200)


def _listed(path: Path, problems: list[str]) -> list[Example]:
    try:
        return read_list(path)
    except InputError as error:
        problems.append(str(error))
        return []


def _check_examples(
    examples: dict[str, list[Example]],
    labels: LabelSet,
    workers: int | None,
    on_progress: Callable[[int, int], None],
) -> dict[Example, ExampleCheck]:
    """Read every example once, in parallel."""
    items = [example for listed in examples.values() for example in listed]
    checked = {}
    work = functools.partial(check_example, num_classes=labels.num_classes)
    for example, result in stream(work, items, workers=workers):
        died = f"{example.photo}: the process that read it died"
        checked[example] = result or ExampleCheck(np.zeros(256, int), "", died)
        on_progress(len(checked), len(items))
    return checked


def check_example(example: Example, num_classes: int) -> ExampleCheck:
    """Read one example; the function that runs in every worker."""
    try:
        photo, label = read_pair(example.photo, example.label, num_classes)
    except InputError as error:
        return ExampleCheck(np.zeros(256, int), "", str(error))
    content = hashlib.sha256(str(photo.shape).encode() + photo.tobytes()).hexdigest()
    return ExampleCheck(np.bincount(label.ravel(), minlength=256), content)


def _twice(examples: dict[str, list[Example]], checked: dict[Example, ExampleCheck]) -> list[str]:
    """Name the photos that are in two lists, or twice in one, under any name."""
    places: dict[str, list[tuple[str, Example]]] = defaultdict(list)
    for split, listed in examples.items():
        for example in listed:
            places[checked[example].photo or example.photo].append((split, example))
    problems = []
    for (first, one), *others in places.values():
        for second, other in others:
            if one.photo == other.photo or first != second:
                problems.append(
                    f"{other.photo}, in {second}.txt: is the same photo as {one.photo} in "
                    f"{first}.txt; keep one of them"
                )
    return problems


def _unlisted(root: Path, examples: dict[str, list[Example]]) -> list[str]:
    """Say how many files below images/ and labels/ no list names."""
    listed = {Path(path) for some in examples.values() for e in some for path in (e.photo, e.label)}
    problems = []
    for folder in ("images", "labels"):
        files = {path for path in (root / folder).glob("*") if not path.name.startswith(".")}
        if left := sorted(files - listed):
            problems.append(
                f"{root / folder}: {len(left)} files are in no list, first {left[0].name}; remove "
                "them or prepare the set again"
            )
    return problems


def _describe(path: Path, examples: list[Example]) -> dict[str, Any]:
    return {"examples": len(examples), "sha256": sha256_of(path)}


def _per_class(
    examples: dict[str, list[Example]], checked: dict[Example, ExampleCheck], labels: LabelSet
) -> list[dict[str, Any]]:
    """Return pixels and images per class and split, `ignore` last."""
    counts = {split: [checked[e].pixels for e in some] for split, some in examples.items()}
    pixels = {split: _total(of_each) for split, of_each in counts.items()}
    images = {split: _total(count > 0 for count in of_each) for split, of_each in counts.items()}
    named = [*enumerate(labels.names), (IGNORE, "ignore")]
    return [
        {
            "id": label_id,
            "name": name,
            "pixels": {split: int(count[label_id]) for split, count in pixels.items()},
            "images": {split: int(count[label_id]) for split, count in images.items()},
        }
        for label_id, name in named
    ]


def _total(counts: Iterable[np.ndarray]) -> np.ndarray:
    return sum(counts, np.zeros(256, np.int64))
