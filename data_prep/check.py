"""What `lglstm data check` looks at: every file of a prepared set, read as training would read it.

A set is sound when every list can be read, every photo has a label map of its size with known ids,
no photo is in two lists (by name or by content), no file is left out of the lists, and the labels
tell a net something: more than one class everywhere, every class in the training list.
"""

from __future__ import annotations

import functools
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.hashing import sha256_of
from lglstm.common.images import read_label, read_pair
from lglstm.common.labels import IGNORE, LabelSet, read_label_set
from lglstm.common.parallel import stream
from lglstm.common.sheets import SheetRow, write_sheet
from lglstm.data_prep.prepare import SPLITS, SUMMARY
from lglstm.layers import seg_options
from lglstm.layers.seg_list import Example, read_list

SAMPLES = 12

TRAIN = SPLITS[0]


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
    problems += _unlearnable(lists, examples, checked, labels)
    return {
        "set": str(root),
        "label_set": labels.name,
        "ok": not problems,
        "problems": problems,
        "lists": {split: _describe(path, examples[split]) for split, path in lists.items()},
        "classes": _per_class(examples, checked, labels),
    }


def label_set_of(root: Path) -> LabelSet:
    """Return the label set that a prepared set's dataset.json has."""
    if not (root / SUMMARY).is_file():
        raise InputError(
            f"{root}: has no {SUMMARY}; prepare the set to its end, or name its --label-set"
        )
    return read_label_set(root / SUMMARY)


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


def _unlearnable(
    lists: dict[str, Path],
    examples: dict[str, list[Example]],
    checked: dict[Example, ExampleCheck],
    labels: LabelSet,
) -> list[str]:
    problems = []
    for split, listed in examples.items():
        pixels = _total(checked[example].pixels for example in listed)
        sentence = nothing_to_learn(pixels, labels.names, training=split == TRAIN)
        problems += [f"{lists[split]}: {sentence}"] if sentence else []
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


# ---------------------------------------------------------------- is there anything to learn?


def nothing_to_learn(
    pixels: np.ndarray, names: Sequence[str], *, ignore: int = IGNORE, training: bool = True
) -> str | None:
    """Say why a net cannot learn what it is meant to from some label maps, and what they look like.

    pixels: (256,), how many pixels of the label maps have each id. names: the classes by id.
    training: every class must be there; without, only more than one, as for a test list.
    None when nothing is wrong, or when there are no pixels at all.
    """
    known = [k for k in range(len(names)) if pixels[k] and k != ignore]
    if not pixels.any():
        return None
    ids = f"1 to {len(names) - 1}"
    if not known:
        return (
            f"every pixel of its label maps is {ignore}, which means unknown, so there is nothing "
            f"to learn or to measure; write the id of its class ({ids}) for each part, and 0 for "
            "the background"
        )
    if len(known) == 1 and pixels[ignore]:
        return (
            f"its label maps have only {known[0]} and {ignore}, and {ignore} means unknown, so "
            f"there is nothing to learn or to measure; they look like masks that mark the object "
            f"by {ignore}: write the id of its class ({ids}) instead"
        )
    if len(known) == 1:
        return (
            f"every pixel of its label maps is {known[0]} ('{names[known[0]]}'), so there is "
            "nothing to learn or to measure; check that they are the label maps of these photos"
        )
    missing = [f"'{name}' ({k})" for k, name in enumerate(names) if k not in known and k != ignore]
    if not training or not missing:
        return None
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    looks = "they look like masks of one object: " if known == [0, 1] else ""
    return (
        f"no pixel of its label maps is {', '.join(missing[:3])}{more}, so that cannot be learned; "
        f"{looks}add examples, or choose the label set and the number of classes that the label "
        "maps have"
    )


def nothing_to_learn_in(nets: Iterable[Any], folder: Path) -> Iterator[str]:
    """Yield a sentence for each list of the SegData layers in `nets` that teaches nothing.

    nets: NetParameter messages. folder: where paths in them start. Label maps are read only until
    all classes were seen, which in sound sets are few. Lists and files that cannot be read are
    passed over: the layer itself names them.
    """
    seen = set()
    for net in nets:
        for layer in seg_options.seg_data_layers(net):
            try:
                options = seg_options.parse(layer.python_param.param_str)
            except InputError:
                continue
            if (key := (options.list, options.root, options.train)) not in seen:
                seen.add(key)
                if sentence := _nothing_in_list(options, folder):
                    yield f"{options.list}: {sentence}"


def _nothing_in_list(options: seg_options.SegDataOptions, folder: Path) -> str | None:
    root = folder / options.root if options.root is not None else None
    try:
        examples = read_list(folder / options.list, root)
    except InputError:
        return None
    names = _class_names(folder / options.list, options.num_classes)
    wanted = set(range(options.num_classes)) - {options.ignore_label}
    enough = len(wanted) if options.train else min(2, len(wanted))
    pixels = np.zeros(256, np.int64)
    for example in examples:
        try:
            label = read_label(example.label, options.num_classes, options.ignore_label)
        except InputError:
            continue
        pixels += np.bincount(label.ravel(), minlength=256)
        if sum(pixels[k] > 0 for k in wanted) >= enough:
            return None
    return nothing_to_learn(pixels, names, ignore=options.ignore_label, training=options.train)


def _class_names(list_path: Path, num_classes: int) -> Sequence[str]:
    """The names of the classes, if the list belongs to a prepared set; else their ids."""
    try:
        labels = label_set_of(list_path.parent)
    except InputError:
        labels = None
    if labels is not None and labels.num_classes == num_classes:
        return labels.names
    return [f"class {k}" for k in range(num_classes)]
