"""The one way every data set is prepared: tasks in parallel, a journal, lists at the end.

A reader (`fashionista.py`, `horse_cow.py`, `atr.py`) describes its set as a `DataSet`: the names
and splits of its tasks, a stream of those tasks, and a function that turns one task into examples.
`prepare` does the rest: it runs that function on all cores or on a Dask cluster, writes

    DEST/images/<name>.jpg|.png    DEST/labels/<name>.png    DEST/<split>.txt    DEST/dataset.json

each file whole or not at all, and continues where an earlier run stopped. `dataset.json` comes
last: a folder that has it is complete.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lglstm.common import locks
from lglstm.common.errors import InputError
from lglstm.common.files import atomic_path, check_ordinary, inside, sweep, write_text
from lglstm.common.images import write_label
from lglstm.common.labels import DATA_SET, LabelSet
from lglstm.common.locks import locked
from lglstm.common.parallel import stream

JOURNAL = "prepared.jsonl"
SUMMARY = DATA_SET
SKIPPED = "skipped.txt"
SPLITS = ("train", "val", "test")

LONGEST_NAME = 255 - len(".png")
"""Bytes of a name to which a suffix is added; file systems allow 255."""


@dataclass(frozen=True)
class Task:
    """One unit of work; `payload`, what `DataSet.convert` takes, travels between processes.

    stamp: of the files that it reads (`sources.stamp`); with another one, it is done again.
    """

    name: str
    payload: Any
    stamp: str = ""


@dataclass(frozen=True)
class LabeledImage:
    """One image with its label map.

    image: (H, W, 3) uint8 BGR, written as PNG; or the bytes of a JPEG file, kept as they are.
    label: (H, W) uint8 of ids, 255 where unknown.
    """

    name: str
    image: np.ndarray | bytes
    label: np.ndarray


@dataclass(frozen=True)
class Converted:
    """What a task gave: its examples, and counts of what was met or left out, by description."""

    examples: list[LabeledImage]
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSet:
    """A data set that can be prepared.

    splits: split ("train", "val", "test") of every task by task name, in the order of the lists.
    tasks: called to get the tasks, as a stream; tasks that are not in `splits` are passed over.
    convert: turns a task into examples; a module-level function, since it runs in other processes.
    settings: the options that shaped the result; a run continues only with the same ones.
    published: examples per split that the paper or the set's authors report, to compare with.
    notes: sentences about the set that belong into its summary.
    """

    name: str
    labels: LabelSet
    splits: Mapping[str, str]
    tasks: Callable[[], Iterable[Task]]
    convert: Callable[[Any], Converted]
    settings: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class JournalEntry:
    """One line of the journal: a finished task, or, with `error`, one that was bad."""

    task: str
    files: list[tuple[str, str]] = field(default_factory=list)
    counts: Mapping[str, int] = field(default_factory=dict)
    error: str = ""
    stamp: str = ""

    def is_of(self, task: Task) -> bool:
        """Whether the task's files are as they were; journals of older versions do not say."""
        return self.stamp in ("", task.stamp)


def prepare(
    data_set: DataSet,
    destination: str | os.PathLike[str],
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    skip_bad: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Prepare `data_set` in the folder `destination`; return what `dataset.json` then holds.

    workers: processes, by default one per core; 1 works within this process.
    scheduler: address of a Dask scheduler whose workers see `destination` under the same path.
    skip_bad: leave bad inputs out and name them in skipped.txt; otherwise the first one raises.
    on_progress: called with (finished tasks, all tasks).
    Raises InputError for a bad input or folder, and when another process writes into the folder.
    What was finished stays, and is done again only if a file of the source has changed.
    """
    root = Path(destination)
    if os.path.lexists(root) and not os.path.isdir(root):
        raise InputError(f"{root}: is a file; name a folder")
    with locked(root, advice="choose another folder"):
        done = _convert_all(data_set, root, workers, scheduler, skip_bad, on_progress)
        for folder in (root, root / "images", root / "labels"):
            sweep(folder)
        return _write_summary(data_set, root, done)


def _convert_all(
    data_set: DataSet,
    root: Path,
    workers: int | None,
    scheduler: str | None,
    skip_bad: bool,
    on_progress: Callable[[int, int], None],
) -> dict[str, JournalEntry]:
    """Convert the tasks that earlier runs did not; return the entries of all."""
    journal = _Journal(root, data_set)
    done = {name: entry for name, entry in journal.read().items() if not entry.error}
    pending = (
        task
        for task in data_set.tasks()
        if task.name in data_set.splits and not (task.name in done and done[task.name].is_of(task))
    )
    total = len(data_set.splits)
    on_progress(len(done), total)
    work = functools.partial(run_task, data_set.convert, data_set.labels, root)
    results = stream(work, pending, workers=workers, scheduler=scheduler)
    with contextlib.closing(results), journal:
        for task, result in results:
            entry = replace(result or _crashed(task), stamp=task.stamp)
            if entry.error and not skip_bad:
                raise InputError(entry.error)
            journal.add(entry)
            done[entry.task] = entry
            on_progress(len(done), total)
    missing = [name for name in data_set.splits if name not in done]
    if missing:
        raise InputError(
            f"{data_set.name}: {len(missing)} of {total} examples were not found in the source, "
            f"first '{missing[0]}'; check that the source is complete"
        )
    return done


# ---------------------------------------------------------------- one task


def run_task(
    convert: Callable[[Any], Converted], labels: LabelSet, root: Path, task: Task
) -> JournalEntry:
    """Convert one task and write its files: the function that runs in every worker."""
    cv2.setNumThreads(1)  # the processes are the parallelism
    try:
        converted = convert(task.payload)
        for example in converted.examples:
            _check_name(example.name)
    except InputError as error:
        return JournalEntry(task.name, error=str(error))
    except MemoryError:
        return _crashed(task)
    except OSError as error:
        return JournalEntry(task.name, error=f"{error.filename}: cannot be read ({error.strerror})")
    files = [_write_example(root, example, labels) for example in converted.examples]
    return JournalEntry(task.name, files, dict(converted.counts))


def _crashed(task: Task) -> JournalEntry:
    error = (
        f"{task.name}: the process that read it was killed or ran out of memory; fetch its files "
        "again, or use fewer --workers"
    )
    return JournalEntry(task.name, error=error)


def _check_name(name: str) -> None:
    """Refuse names that lead elsewhere, are hidden, or could not stand in a list."""
    if not name or name[0] in ". " or "/" in name or not name.isprintable():
        raise InputError(
            f"'{name}' cannot name a file of a data set; use printable characters in UTF-8, no "
            "'/', and neither '.' nor a space at the start"
        )
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise InputError(
            f"'{name}' cannot name a file of a data set: it has more than {LONGEST_NAME} bytes; "
            "shorten it"
        )


def _write_example(root: Path, example: LabeledImage, labels: LabelSet) -> tuple[str, str]:
    """Write image and label; return their paths relative to `root`."""
    if isinstance(example.image, bytes):
        image, data = f"images/{example.name}.jpg", example.image
    else:
        image, data = f"images/{example.name}.png", cv2.imencode(".png", example.image)[1].tobytes()
    label = f"labels/{example.name}.png"
    # Not synced: one of thousands, and whoever reads them finds a damaged one.
    with atomic_path(inside(root, image), sync=False) as temporary:
        temporary.write_bytes(data)
    write_label(inside(root, label), example.label, labels.palette)
    return image, label


# ---------------------------------------------------------------- what was done


class _Journal:
    """DEST/prepared.jsonl: a first line that identifies the set, then a line per finished task."""

    def __init__(self, root: Path, data_set: DataSet) -> None:
        self.path = root / JOURNAL
        self.root = root
        lines = "".join(f"{name} {split}\n" for name, split in data_set.splits.items())
        head = {
            "set": data_set.name,
            "settings": dict(data_set.settings),
            "tasks": hashlib.sha256(os.fsencode(lines)).hexdigest(),
        }
        self.head = json.loads(json.dumps(head))  # as it reads back: tuples are lists

    def read(self) -> dict[str, JournalEntry]:
        """Return the entries of an earlier run whose files are all there."""
        try:
            if not self.path.exists():
                self._start()
                return {}
            check_ordinary(self.path)
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise InputError(
                f"{self.root}: cannot be used ({error.strerror}); check its permissions, or choose "
                "another folder"
            ) from error
        records = [record for record in map(_parse, lines) if record is not None]
        if not records or records[0] != self.head:
            raise InputError(
                f"{self.root}: was prepared from another source or with other options; choose "
                "another folder, or remove this one"
            )
        entries = {}
        for record in records[1:]:
            with contextlib.suppress(TypeError, ValueError):  # a line that was cut short
                entry = JournalEntry(**record)
                if all(_is_whole(self.root / name) for pair in entry.files for name in pair):
                    entries[entry.task] = entry
        return entries

    def _start(self) -> None:
        sweep(self.root)  # of a run that was killed right here
        if any(path.name != locks.FILE for path in self.root.iterdir()):
            raise InputError(f"{self.root}: is not empty; choose a new folder for the data set")
        write_text(self.path, json.dumps(self.head) + "\n")

    def __enter__(self) -> _Journal:
        try:
            self.file = self.path.open("a", encoding="utf-8")
            self.file.write("\n")  # ends a line that an earlier run left unfinished
        except OSError as error:
            raise _not_written(self.path, error) from error
        return self

    def add(self, entry: JournalEntry) -> None:
        try:
            self.file.write(json.dumps(entry.__dict__) + "\n")
            self.file.flush()
        except OSError as error:
            raise _not_written(self.path, error) from error

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            os.fsync(self.file.fileno())
        with contextlib.suppress(OSError):
            self.file.close()


def _parse(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _is_whole(path: Path) -> bool:
    """Whether a picture has its start and its end, which it may lack after a power cut."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            file.seek(-8, os.SEEK_END)
            end = file.read()
    except OSError:
        return False
    if path.suffix == ".png":
        return start == b"\x89PNG\r\n\x1a\n" and end == b"IEND\xaeB`\x82"
    return start[:2] == b"\xff\xd8" and any(end)


def _not_written(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path}: cannot be written ({error.strerror}); check the free space and the permissions"
    )


def _line(image: str, label: str) -> str:
    """The line of a list: apart by a space, or by a tab if the names have spaces."""
    return f"{image}\t{label}\n" if " " in image else f"{image} {label}\n"


def _write_summary(
    data_set: DataSet, root: Path, done: Mapping[str, JournalEntry]
) -> dict[str, Any]:
    """Write the lists, skipped.txt if needed, and last dataset.json."""
    used = set(data_set.splits.values())
    lists: dict[str, list[str]] = {split: [] for split in SPLITS if split in used}
    counts: Counter[str] = Counter()
    skipped = []
    for name, split in data_set.splits.items():
        entry = done[name]
        counts.update(entry.counts)
        lists[split] += [_line(image, label) for image, label in entry.files]
        if entry.error:
            skipped.append(f"{name}\t{entry.error}\n")
    for split, lines in lists.items():
        write_text(root / f"{split}.txt", "".join(lines))
    (root / SKIPPED).unlink(missing_ok=True)
    if skipped:
        write_text(root / SKIPPED, "".join(skipped), errors="backslashreplace")
    summary = {
        "set": data_set.name,
        "label_set": data_set.labels.to_json(),
        "settings": dict(data_set.settings),
        "examples": {split: len(lines) for split, lines in lists.items()},
        "published": dict(data_set.published),
        "skipped": len(skipped),
        "counts": dict(sorted(counts.items())),
        "notes": list(data_set.notes),
    }
    write_text(root / SUMMARY, json.dumps(summary, indent=2) + "\n")
    return summary
