"""Records of training runs: our CSV (written and read) and the log of `caffe train` (read)."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.files import check_ordinary, write_text

TOTAL = "total_loss"
TEST = "test_"
MAX_ITERATION = 2**31 - 1  # Caffe's
# Columns of the CSV that are not losses.
PLAIN = ("iteration", "lr", "seconds", "data_seconds")


class CsvLog:
    """A CSV with one row per iteration, flushed at once, so that a killed run keeps its rows.

    `iteration` counts from 0 as in Caffe's own log: its losses are those before update number
    `iteration`. A row holds the test results of an iteration at which the nets were tested; those
    after the last update are in a row without training losses.
    """

    def __init__(self, path: Path, columns: list[str], start: int):
        """Open for the rows from iteration `start` on; a file there keeps its rows before it.

        `lost` says which of those are damaged, if any are.
        """
        self.path = path
        self.columns = columns
        header = ",".join(columns)
        self.lost, kept = "", []
        if start and path.exists():
            kept = _rows_before(path, header, start)
            if missing := start - len(kept):
                self.lost = f"{path}: {missing} of its first {start} rows are missing or damaged"
        write_text(path, "".join(f"{line}\n" for line in [header, *kept]))
        self._file = path.open("a", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")

    def write(self, row: dict[str, float]) -> None:
        try:
            self._writer.writerow([_number(row.get(column)) for column in self.columns])
            self._file.flush()
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); free some space, then resume"
            ) from error

    def close(self) -> None:
        self._file.close()


def _number(value: float | None) -> str:
    # Nine digits tell any two float32 apart.
    return "" if value is None else f"{value:.9g}"


def _rows_before(path: Path, header: str, start: int) -> list[str]:
    """The lines of an earlier run below iteration `start`, without those that are damaged."""
    first, *lines = _text(path).split("\n")
    if first != header:
        raise InputError(
            f"{path}: its columns do not match this net; move it away, then resume once more"
        )
    kept: list[str] = []
    last = -1
    for line in lines[:-1]:  # what comes after the last end of a line was cut short
        number = _iteration(line, header.count(",") + 1)
        if last < number < start:
            kept.append(line)
            last = number
    return kept


def _iteration(line: str, columns: int) -> int:
    """The iteration of a row; -1 when it is damaged."""
    number, *values = line.split(",")
    if not (number.isascii() and number.isdigit()) or len(values) != columns - 1:
        return -1
    try:
        list(map(float, filter(None, values)))
        return int(number)
    except ValueError:
        return -1


def _text(path: Path) -> str:
    try:
        check_ordinary(path)
        return path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error


@dataclass
class Run:
    """The curves of one run: name of a loss or score -> {iteration: value}.

    `losses` holds the training losses, `TOTAL` their weighted sum; `tests` the same of the test
    nets. Loss values have no unit (nats per labeled pixel for SoftmaxWithLoss). `net` is the name
    in the prototxt, "" where no log tells it.
    """

    name: str
    net: str = ""
    losses: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    tests: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))

    @property
    def title(self) -> str:
        """What a picture calls the run: its name, and that of its net where it is another."""
        return self.name if self.net in ("", self.name) else f"{self.name} (net {self.net})"

    def forget_from(self, iteration: int) -> None:
        """Drop what was recorded from `iteration` on: the run was resumed before it."""
        for curve in (*self.losses.values(), *self.tests.values()):
            for later in [k for k in curve if k >= iteration]:
                del curve[later]


def curve(points: dict[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """A curve's iterations and values as two arrays in order of the iterations."""
    order = sorted(points)
    return np.array(order, dtype=np.int64), np.array([points[k] for k in order], dtype=np.float64)


def read(path: Path) -> Run:
    """Read a CSV of `lglstm train` or a log of `caffe train`; InputError when it is neither."""
    text = _text(path)
    run = _from_csv(path, text) if text.startswith("iteration,") else _from_log(path, text)
    if not run.losses[TOTAL]:
        raise InputError(
            f"{path}: holds no losses; give a CSV of lglstm train, or the log of a caffe train "
            "whose solver sets display"
        )
    return run


def _from_csv(path: Path, text: str) -> Run:
    run = Run(path.stem, _net_beside(path))
    try:
        for row in csv.DictReader(text.splitlines()):
            for column, value in row.items():
                if column in PLAIN or not value:
                    continue
                if column.startswith(TEST):
                    run.tests[column.removeprefix(TEST)][_count(row["iteration"])] = float(value)
                else:
                    run.losses[column][_count(row["iteration"])] = float(value)
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        raise InputError(
            f"{path}: is not a CSV of lglstm train ({_short(error)}); remove the damaged rows"
        ) from error
    return run


def _net_beside(path: Path) -> str:
    """The net's name in the log that `lglstm train` keeps beside its CSV; "" if there is none."""
    try:
        with path.with_suffix(".log").open("rb") as file:
            start = file.read(LOG_START).decode("utf-8", "replace")
    except OSError:
        return ""
    found = _NET.search(start)
    return found[1] if found else ""


def _count(text: str) -> int:
    """An iteration; ValueError for what cannot be one."""
    number = int(text)
    if not 0 <= number <= MAX_ITERATION:
        shown = f"{number:.3g}" if len(text) < 300 else f"of {len(text)} digits"  # beyond floats
        raise ValueError(f"iteration {shown}")
    return number


def _short(error: Exception) -> str:
    text = str(error)
    return text if len(text) <= 100 else f"{text[:100]}…"


LOG_START = 2**20
"""Bytes of a log in which the net is named, before anything is trained."""

_NET = re.compile(r'^name: "([^"\n]{1,100})"$', re.MULTILINE)
_LOSS = re.compile(r"\] Iteration (\d+)(?: \([^)]*\))?, loss = (\S+)")
_TESTING = re.compile(r"\] Iteration (\d+), Testing net \(#(\d+)\)")
_OUTPUT = re.compile(
    r"\] +(Train|Test) net output #\d+: (\S+) = (\S+)(?: \(\* \S+ = (\S+) loss\))?"
)


def _from_log(path: Path, text: str) -> Run:
    """Follow a log line by line: outputs belong to the iteration named last before them.

    A log that continues after a resume repeats iterations; the later record counts.
    """
    named = _NET.search(text[:LOG_START])
    reader = _LogReader(Run(path.stem, named[1] if named else ""))
    for number, line in enumerate(text.splitlines(), 1):
        try:
            reader.feed(line)
        except ValueError as error:
            raise InputError(
                f"{path}, line {number}: is damaged ({_short(error)}); correct or remove the line"
            ) from error
    return reader.run


@dataclass
class _LogReader:
    run: Run
    latest: int = -1
    net: int = 0

    def feed(self, line: str) -> None:
        """Take one line; ValueError when it holds something else where a number should be."""
        if mark := _LOSS.search(line) or _TESTING.search(line):
            iteration = _count(mark[1])
            if iteration < self.latest:
                self.run.forget_from(iteration)
            self.latest = iteration
            if mark.re is _LOSS:
                self.run.losses[TOTAL][iteration] = float(mark[2])
            else:
                self.net = int(mark[2])
                self.run.tests[test_name(self.net, TOTAL)].pop(iteration, None)
        elif output := _OUTPUT.search(line):
            _add_output(self.run, self.latest, self.net, *output.groups())


def _add_output(
    run: Run, iteration: int, net: int, phase: str, name: str, value: str, share: str | None
) -> None:
    """Record one "net output" line; `share` is what it adds to the total loss, if it is a loss."""
    if phase == "Train":
        if share:
            run.losses[name][iteration] = float(value)
        return
    run.tests[test_name(net, name)][iteration] = float(value)
    if share:
        total = run.tests[test_name(net, TOTAL)]
        total[iteration] = total.get(iteration, 0.0) + float(share)


def test_name(net: int, name: str) -> str:
    """How an output of test net number `net` is called; that of the first net just by its name."""
    return f"{name}#{net}" if net else name
