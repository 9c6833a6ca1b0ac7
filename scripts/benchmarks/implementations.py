"""What is timed: each implementation in a worker, and only what computes the baseline's numbers."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from benchmarks.memory import available_mib
from benchmarks.timing import Measured, rounds
from benchmarks.worker import Worker, WorkerError
from lglstm.common.errors import InputError, UsageError
from lglstm.common.suggest import nearest

Result = TypeVar("Result")

TOLERANCE = 1e-4
"""Largest difference allowed, relative to the largest value of an array; single precision."""

TORCH_ENVIRONMENT = {"OMP_WAIT_POLICY": None}
"""PyTorch's threads wait as GNU OpenMP's do by default, spinning for a moment before they sleep.

For PyTorch that is the faster way: with `passive`, Caffe's default here, the factored stack took
1.16 times as long on two cores.
"""

REASON_LENGTH = 100

MEMORY_MARGIN = 1.2
"""How much more than the baseline the others may take each, on average."""

SLOW_SHARE = 3
"""A slow implementation takes part in one of this many rounds."""


@dataclass(frozen=True)
class Implementation:
    """A row of a table.

    key: its name in options and JSON. label: its name in tables. target, arguments, environment:
    see Worker; `threads` as an argument is replaced by their number. slow: takes part in fewer
    rounds. package: the Python package that it needs, if that may be missing.
    """

    key: str
    label: str
    target: str
    arguments: tuple[Any, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)
    slow: bool = False
    package: str = ""

    def start(self, threads: int, environment: Mapping[str, str | None] | None = None) -> Worker:
        given = [threads if a == "threads" else a for a in self.arguments]
        environment = {**self.environment, **(environment or {})}
        return Worker(self.target, *given, threads=threads, environment=environment)


def select(
    known: Iterable[Implementation], keys: Iterable[str], given: str
) -> list[Implementation]:
    """The implementations of these keys, in this order; `given` is what the user wrote."""
    by_key = {implementation.key: implementation for implementation in known}
    for key in keys:
        if key not in by_key:
            raise UsageError(f"{given}: there is no {key!r}; {nearest(key, by_key)}")
    return [by_key[key] for key in dict.fromkeys(keys)]


class Comparison:
    """The implementations that are running; those that could not start or go on, with the reason.

    The first one is the baseline, which the others are compared with: what fails there ends all.
    steps: how many runs there will be; tell(done, steps) is called after each.

    Attributes: workers, left_out, versions and peaks_mib (of the last `measure`) by key;
    environments: more variables for some implementations, by key, to be set before they start;
    one_at_a_time: whether memory did not suffice for all at once in the last `measure`.
    """

    def __init__(
        self,
        implementations: Iterable[Implementation],
        threads: int,
        steps: int = 0,
        tell: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.implementations, self.threads = list(implementations), threads
        self.workers: dict[str, Worker] = {}
        self.left_out: dict[str, str] = {}
        self.environments: dict[str, Mapping[str, str | None]] = {}
        self.versions: dict[str, str] = {}
        self.peaks_mib: dict[str, float] = {}
        self.one_at_a_time = False
        self._steps, self._done, self._tell = steps, 0, tell

    def __enter__(self) -> Comparison:
        self._tell(0, self._steps)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def baseline(self) -> Implementation:
        return self.implementations[0]

    def label(self, key: str) -> str:
        return next(each.label for each in self.implementations if each.key == key)

    def machine(self, *arguments: int) -> Worker:
        """A worker that measures what the machine can do (see Machine); the caller closes it."""
        target = "benchmarks.machine:Machine"
        return Worker(target, self.threads, *arguments, threads=self.threads)

    def start(self) -> None:
        """Start all that were not left out; one that runs anew, with nothing allocated."""
        self.close()
        for implementation in self.implementations:
            self._start(implementation)

    def close(self) -> None:
        while self.workers:
            self.workers.popitem()[1].close()

    def each(self, work: Callable[[Worker], Result]) -> dict[str, Result]:
        """What `work` returns for each worker; one at which it fails is left out from here."""
        results = {}
        for implementation in self.implementations:
            if implementation.key in self.workers:
                made = self._try(implementation, work)
                if made is not None:
                    results[implementation.key] = made
            self.step()
        return results

    def run_alone(
        self, implementation: Implementation, work: Callable[[Worker], Result]
    ) -> Result | None:
        """Start one implementation for some work alone, None if that fails."""
        self._start(implementation)
        if implementation.key not in self.workers:
            return None
        made = self._try(implementation, work)
        if implementation.key in self.workers:
            self.workers.pop(implementation.key).close()
        return made

    def measure(
        self,
        prepare: Callable[[Worker], None],
        repeats: int,
        others: Mapping[str, Worker] | None = None,
        seconds: float = math.inf,
    ) -> dict[str, list[Measured | None]]:
        """Run all implementations in turns after `prepare`, and the others, by name, with them.

        seconds: no further round is begun that would end later than this, counted from here.
        All have been started. If the memory does not suffice for all at once, going by that of the
        baseline, each is started and prepared for every single run.
        """
        self.peaks_mib = {}
        deadline = time.monotonic() + seconds
        self._try(self.baseline, prepare)
        peak = self.workers[self.baseline.key].peak_mib()
        self.one_at_a_time = peak * (MEMORY_MARGIN * len(self.workers) - 1) > available_mib()
        if self.one_at_a_time:
            self.close()
        runs: dict[str, Callable[[], Measured | None]] = {}
        for implementation in self.implementations:
            if implementation.key in self.workers and implementation is not self.baseline:
                self._try(implementation, prepare)
            if implementation.key not in self.left_out:
                runs[implementation.key] = partial(self._run, implementation, prepare)
            self.step()
        slow = max(1, repeats // SLOW_SHARE)
        fewer = {each.key: slow for each in self.implementations if each.slow}
        runs |= {name: worker.run for name, worker in (others or {}).items()}
        measured = rounds(runs, repeats, fewer, lambda name: self.step(), deadline)
        return {key: results for key, results in measured.items() if key not in self.left_out}

    def _run(
        self, implementation: Implementation, prepare: Callable[[Worker], None]
    ) -> Measured | None:
        def run(worker: Worker) -> Measured:
            if self.one_at_a_time:
                prepare(worker)
            measured = worker.run()
            peak = max(self.peaks_mib.get(implementation.key, 0.0), worker.peak_mib())
            self.peaks_mib[implementation.key] = peak
            return measured

        if self.one_at_a_time:
            return self.run_alone(implementation, run)
        return self._try(implementation, run) if implementation.key in self.workers else None

    def step(self) -> None:
        self._done += 1
        self._tell(min(self._done, self._steps), self._steps)

    def _start(self, implementation: Implementation) -> None:
        key = implementation.key
        package = implementation.package
        if package and importlib.util.find_spec(package) is None:
            self.left_out[key] = without(package)
        if key in self.left_out:
            return
        try:
            worker = implementation.start(self.threads, self.environments.get(key))
        except WorkerError as error:
            self._leave_out(implementation, error)
        else:
            self.workers[key] = worker
            if key not in self.versions:
                self.versions[key] = worker.version()

    def _try(
        self, implementation: Implementation, work: Callable[[Worker], Result]
    ) -> Result | None:
        try:
            return work(self.workers[implementation.key])
        except WorkerError as error:
            self._leave_out(implementation, error)
        return None

    def _leave_out(self, implementation: Implementation, error: WorkerError) -> None:
        if implementation is self.baseline:
            raise InputError(
                f"{implementation.label}: {error}; see what `lglstm doctor` says"
            ) from None
        self.left_out[implementation.key] = shortened(str(error))
        worker = self.workers.pop(implementation.key, None)
        if worker is not None:
            worker.close()


def without(package: str) -> str:
    """Why an implementation was left out whose package is missing."""
    return f"{package} is not installed: .venv/bin/pip install {package}"


def check_equal(
    results: Mapping[str, Mapping[str, np.ndarray]],
    label: Callable[[str], str],
    tolerance: float = TOLERANCE,
    special: Mapping[str, float] = MappingProxyType({}),
    by_norm: bool = False,
) -> None:
    """Raise InputError unless all implementations computed the arrays of the first.

    tolerance: of the largest difference relative to the largest value of an array, or of the
        difference's norm relative to the array's if `by_norm`; `special` names those of others.
    """
    first, *others = results
    for key in others:
        for name, expected in results[first].items():
            found = (norm_of_difference if by_norm else difference)(expected, results[key][name])
            allowed = special.get(name, tolerance)
            if not found <= allowed:
                of_what = "norm" if by_norm else "largest value"
                raise InputError(
                    f"{label(key)} does not compute what {label(first)} computes: {name} differs "
                    f"by {found:.1e} of its {of_what}, allowed is {allowed:.0e}; nothing was "
                    "timed, find the mistake first"
                )


def difference(expected: np.ndarray, found: np.ndarray) -> float:
    """Largest difference relative to the largest expected value; NaN where there is NaN."""
    if expected.size != found.size:
        return float("inf")
    largest = np.abs(expected).max() or 1.0
    return float(np.abs(expected - found.reshape(expected.shape)).max() / largest)


def norm_of_difference(expected: np.ndarray, found: np.ndarray) -> float:
    """Euclidean norm of the difference relative to that of the expected values."""
    if expected.size != found.size:
        return float("inf")
    norm = np.linalg.norm(expected) or 1.0
    return float(np.linalg.norm(expected - found.reshape(expected.shape)) / norm)


def shortened(reason: str) -> str:
    return reason if len(reason) <= REASON_LENGTH else f"{reason[: REASON_LENGTH - 1]}…"
