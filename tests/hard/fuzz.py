"""Gives damaged files to every reader: each must return, or raise one InputError of one line.

Readers run in worker processes, thousands of files a second in each. What counts as a fault: any
other exception, the end of the process, more than LONGEST seconds, a claim of more than MOST bytes
beyond what the process has.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing as mp
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz_readers import Reader, make_readers
from mutations import damaged

from lglstm.common.errors import InputError

CORPUS = Path(__file__).resolve().parent / "corpus"
LONGEST = 5
"""Seconds of processor time that a reader may take for a small file."""

MOST = 1 << 30
"""Bytes that a reader may take for a small file."""

CHUNK = 500
STUCK = 60
"""Seconds without processor time after which a worker counts as waiting for ever."""

LARGEST_SAVED = 1 << 17


class Hang(BaseException):
    """Raised in a reader that takes too long; no handler of readers catches it."""


@dataclass(frozen=True)
class Fault:
    """What a reader did with a file. place: the line of ours that it is known by."""

    reader: str
    kind: str
    place: str
    detail: str
    content: bytes

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.reader, self.kind, self.place)


@dataclass
class Tally:
    """Files tried, and how they came out, by reader; faults that differ, the smallest of each.

    seconds: processor time that the readers took.
    """

    tried: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    faults: dict[tuple[str, str, str], Fault] = field(default_factory=dict)
    times: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def add(self, fault: Fault) -> None:
        self.times[fault.key] += 1
        known = self.faults.get(fault.key)
        if known is None or len(fault.content) < len(known.content):
            self.faults[fault.key] = fault


# --- One file -------------------------------------------------------------------------------------


def attempt(reader: Reader, path: Path) -> tuple[bool, tuple[str, str, str] | None]:
    """Read a file; return whether it was read, and what was wrong: kind, place and detail."""
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        reader.read(path)
        return True, None
    except InputError as error:
        return False, _memory(error) or _unclear(error)
    except reader.allowed as error:
        return False, _memory(error)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        kind = "hang" if isinstance(error, Hang) else "traceback"
        if isinstance(error, MemoryError):
            kind = "memory"
        return False, (kind, _place(error), f"{type(error).__name__}: {str(error)[:300]}")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _memory(error: BaseException) -> tuple[str, str, str] | None:
    """A claim of too much memory, also when the reader made a sentence of it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or "Unable to allocate" in str(cause):
            return "memory", _place(cause), str(cause)[:300]
        cause = cause.__cause__ or cause.__context__
    return None


def _unclear(error: BaseException) -> tuple[str, str, str] | None:
    text = str(error)
    if len(text.splitlines()) > 1:
        return "message", _place(error), repr(text[:300])
    return None


def _place(error: BaseException) -> str:
    """The innermost line of ours, and the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "site-packages" not in f.filename and "/hard/" not in f.filename]
    shown = (ours or frames)[-1:]
    return " ".join(f"{Path(f.filename).name}:{f.name}" for f in shown) + f" {type(error).__name__}"


def on_alarm(signum: int, frame: FrameType | None) -> None:
    raise Hang(f"took more than {LONGEST} s")


def limit_memory() -> None:
    """Let this process claim MOST bytes more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MOST
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


# --- Workers --------------------------------------------------------------------------------------


def inputs(reader: Reader, seed: str, count: int) -> Iterator[bytes]:
    """Damaged files of a reader; the same for the same seed."""
    rng = random.Random(seed)
    ways = [damaged, *reader.mutations] if reader.mutations else [damaged]
    for _ in range(count):
        start = rng.choice(reader.seeds)
        yield rng.choice(ways)(start, list(reader.seeds), rng)


def _work(readers: dict[str, Reader], folder: Path, connection: Connection) -> None:
    """Take chunks of work until the other end is closed."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    os.dup2(sys.stderr.fileno(), 1)
    os.dup2(sys.stderr.fileno(), 2)
    signal.signal(signal.SIGPROF, on_alarm)
    limit_memory()
    while True:
        try:
            name, seed, count = connection.recv()
        except EOFError:
            return
        reader = readers[name]
        home = folder / name.replace(" ", "_")
        home.mkdir(parents=True, exist_ok=True)
        read, faults, start = 0, [], time.process_time()
        for content in inputs(reader, seed, count):
            path = home / reader.filename
            path.write_bytes(content)
            good, fault = attempt(reader, path)
            read += good
            if fault is not None:
                faults.append(Fault(name, *fault, content))
        shutil.rmtree(home)
        connection.send((read, faults, time.process_time() - start))


class Worker:
    """A process that is replaced when it dies; it shares no lock, which might die with it."""

    def __init__(self, readers: dict[str, Reader], folder: Path) -> None:
        self.readers, self.folder = readers, folder
        self.job: tuple[str, str, int] | None = None
        self._start()

    def _start(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        context = mp.get_context("fork")
        self.connection, other = context.Pipe()
        self.process = context.Process(
            target=_work, args=(self.readers, self.folder, other), daemon=True
        )
        self.process.start()
        other.close()
        self._used, self._since = 0.0, time.monotonic()

    def give(self, job: tuple[str, str, int]) -> None:
        self.job = job
        self._since = time.monotonic()
        with contextlib.suppress(OSError):  # it has just died, which `add_to` will find
            self.connection.send(job)

    def add_to(self, tally: Tally) -> None:
        """Add what came of the job. Of a crash, only the file that made it counts."""
        assert self.job is not None
        try:
            tried, (read, faults, seconds) = self.job[2], self.connection.recv()
        except (EOFError, OSError):
            tried, read, faults, seconds = 1, 0, [self._replace()], 0.0
        name = self.job[0]
        self.job = None
        tally.tried[name] += tried
        tally.read[name] += read
        tally.seconds[name] += seconds
        for fault in faults:
            tally.add(fault)

    def is_stuck(self) -> bool:
        """Whether it took no processor time for long, and so cannot hear its alarm."""
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            used = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
            if used > self._used:
                self._used, self._since = used, time.monotonic()
        return time.monotonic() - self._since > STUCK

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _replace(self) -> Fault:
        """Start anew; return the crash."""
        assert self.job is not None
        name = self.job[0]
        self.stop()
        path = self.folder / name.replace(" ", "_") / self.readers[name].filename
        content = path.read_bytes() if path.exists() else b""
        fault = Fault(name, "crash", f"exit {self.process.exitcode}", "", content)
        self._start()
        return fault


def fuzz(
    count: int, seed: int, folder: Path, workers: int, only: Sequence[str] = (), tell: Any = print
) -> Tally:
    """Try `count` files, dealt evenly to the readers; return what came of them."""
    readers = make_readers(folder / "own")
    chosen = [name for name in readers if not only or any(part in name for part in only)]
    tally = Tally()
    rest = {name: count // len(chosen) + (k < count % len(chosen)) for k, name in enumerate(chosen)}
    jobs = _jobs(rest, seed)
    pool = [Worker(readers, folder / f"worker{k}") for k in range(workers)]
    told = time.monotonic()
    try:
        while True:
            for worker in pool:
                if worker.job is None and (job := next(jobs, None)) is not None:
                    worker.give(job)
            busy = {worker.connection: worker for worker in pool if worker.job is not None}
            if not busy:
                return tally
            for connection in wait(list(busy), timeout=1):
                busy[connection].add_to(tally)
            for worker in busy.values():
                if worker.job is not None and worker.is_stuck():
                    worker.process.kill()  # `add_to` finds it dead
            if time.monotonic() - told > 60:
                told = time.monotonic()
                tell(f"{tally.tried.total():,} inputs tried, {len(tally.faults)} kinds of faults")
    finally:
        for worker in pool:
            worker.stop()


def _jobs(rest: dict[str, int], seed: int) -> Iterator[tuple[str, str, int]]:
    """Chunks of all readers in turn."""
    turn = 0
    while rest:
        for name in list(rest):
            size = min(CHUNK, rest[name])
            if size:
                yield name, f"{seed} {name} {turn}", size
            rest[name] -= size
            if not rest[name]:
                del rest[name]
        turn += 1


def save(fault: Fault, folder: Path = CORPUS) -> Path | None:
    """Keep a file as <reader>-<hash>-<name>; None if it is too large to keep."""
    if len(fault.content) > LARGEST_SAVED:
        return None
    digest = hashlib.sha256(fault.content).hexdigest()[:10]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{fault.reader.replace(' ', '_').replace(',', '')}-{digest}"
    path.write_bytes(fault.content)
    return path


def replayed(path: Path, readers: dict[str, Reader], folder: Path) -> str:
    """Give a file of the corpus to its reader; return what is wrong, or "".

    Call it in a process that has `on_alarm` and `limit_memory`.
    """
    name = path.name.rpartition("-")[0]
    reader = next(r for n, r in readers.items() if n.replace(" ", "_").replace(",", "") == name)
    target = folder / name / reader.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    fault = attempt(reader, target)[1]
    return "" if fault is None else " ".join(fault)
