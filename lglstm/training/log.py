"""Records of training runs: our CSV (written and read) and the log of `caffe train` (read)."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lglstm.common.errors import InputError
from lglstm.common.files import write_text

TOTAL = "total_loss"
TEST = "test_"
# Columns of the CSV that are not losses.
PLAIN = ("iteration", "lr", "seconds", "data_seconds")


class CsvLog:
    """A CSV with one row per iteration, flushed at once, so that a killed run keeps its rows.

    `iteration` counts from 0 as in Caffe's own log: its losses are those before update number
    `iteration`. A row holds the test results of an iteration at which the nets were tested; those
    after the last update are in a row without training losses.
    """

    def __init__(self, path: Path, columns: list[str], start: int):
        """Open for the rows from iteration `start` on; a file there keeps its rows before it."""
        self.path = path
        self.columns = columns
        kept = _rows_before(path, columns, start) if start and path.exists() else []
        write_text(path, "".join(f"{','.join(row)}\n" for row in [columns, *kept]))
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


def _rows_before(path: Path, columns: list[str], start: int) -> list[list[str]]:
    """The rows of an earlier run below iteration `start`; a last row cut short is dropped."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if not rows or rows[0] != columns:
        raise InputError(
            f"{path}: its columns do not match this net; move it away, then resume once more"
        )
    whole = (row for row in rows[1:] if len(row) == len(columns) and row[0].isdigit())
    return [row for row in whole if int(row[0]) < start]


@dataclass
class Run:
    """The curves of one run: name of a loss or score -> {iteration: value}.

    `losses` holds the training losses, `TOTAL` their weighted sum; `tests` the same of the test
    nets. Loss values have no unit (nats per labeled pixel for SoftmaxWithLoss).
    """

    name: str
    losses: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    tests: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))

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
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    run = _from_csv(path, text) if text.startswith("iteration,") else _from_log(path, text)
    if not run.losses[TOTAL]:
        raise InputError(
            f"{path}: holds no losses; give a CSV of lglstm train, or the log of a caffe train "
            "whose solver sets display"
        )
    return run


def _from_csv(path: Path, text: str) -> Run:
    run = Run(path.stem)
    try:
        for row in csv.DictReader(text.splitlines()):
            for column, value in row.items():
                if column in PLAIN or not value:
                    continue
                if column.startswith(TEST):
                    run.tests[column.removeprefix(TEST)][int(row["iteration"])] = float(value)
                else:
                    run.losses[column][int(row["iteration"])] = float(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is not a CSV of lglstm train ({error}); check it") from error
    return run


_LOSS = re.compile(r"\] Iteration (\d+)(?: \([^)]*\))?, loss = (\S+)")
_TESTING = re.compile(r"\] Iteration (\d+), Testing net \(#(\d+)\)")
_OUTPUT = re.compile(
    r"\] +(Train|Test) net output #\d+: (\S+) = (\S+)(?: \(\* \S+ = (\S+) loss\))?"
)


def _from_log(path: Path, text: str) -> Run:
    """Follow a log line by line: outputs belong to the iteration named last before them.

    A log that continues after a resume repeats iterations; the later record counts.
    """
    run, latest, net = Run(path.stem), -1, 0
    for line in text.splitlines():
        if mark := _LOSS.search(line) or _TESTING.search(line):
            iteration = int(mark[1])
            if iteration < latest:
                run.forget_from(iteration)
            latest = iteration
            if mark.re is _LOSS:
                run.losses[TOTAL][iteration] = float(mark[2])
            else:
                net = int(mark[2])
                run.tests[test_name(net, TOTAL)].pop(iteration, None)
        elif output := _OUTPUT.search(line):
            _add_output(run, latest, net, *output.groups())
    return run


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
