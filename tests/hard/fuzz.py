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
    """Files tried, and how they came out, by reader; faults that differ, the smallest of each."""

    tried: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)
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


def _work(readers: dict[str, Reader], folder: Path, jobs: Any, results: Any, slot: Any) -> None:
    """Take chunks of work until there are no more."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    os.dup2(sys.stderr.fileno(), 1)
    os.dup2(sys.stderr.fileno(), 2)
    signal.signal(signal.SIGPROF, on_alarm)
    limit_memory()
    while (job := jobs.get()) is not None:
        name, seed, count = job
        reader = readers[name]
        home = folder / name.replace(" ", "_")
        home.mkdir(parents=True, exist_ok=True)
        slot.value = json_name(job)
        read, faults = 0, []
        for content in inputs(reader, seed, count):
            path = home / reader.filename
            path.write_bytes(content)
            good, fault = attempt(reader, path)
            read += good
            if fault is not None:
                faults.append(Fault(name, *fault, content))
        shutil.rmtree(home)
        slot.value = b""
        results.put((name, count, read, faults))


def json_name(job: tuple[str, str, int]) -> bytes:
    return job[0].encode()


class Pool:
    """Worker processes that are replaced when they die."""

    def __init__(self, readers: dict[str, Reader], folder: Path, count: int) -> None:
        self.context = mp.get_context("fork")
        self.readers, self.folder = readers, folder
        self.jobs: Any = self.context.Queue(2 * count)
        self.results: Any = self.context.Queue()
        self.slots = [self.context.Array("c", 80) for _ in range(count)]
        self.ages = [(0.0, 0.0)] * count
        self.workers = [self._start(k) for k in range(count)]

    def _start(self, k: int) -> Any:
        home = self.folder / f"worker{k}"
        shutil.rmtree(home, ignore_errors=True)
        self.slots[k].value = b""
        arguments = (self.readers, home, self.jobs, self.results, self.slots[k])
        worker = self.context.Process(target=_work, args=arguments, daemon=True)
        worker.start()
        self.ages[k] = (0.0, time.monotonic())
        return worker

    def crashed(self) -> Iterator[Fault]:
        """The files whose readers ended their process or wait for ever; such workers are replaced.

        What such a worker had done of its chunk is not counted.
        """
        for k, worker in enumerate(self.workers):
            name = self.slots[k].value.decode()
            if worker.is_alive() and not self._is_stuck(k, worker):
                continue
            worker.kill()
            worker.join()
            if name:
                reader = self.readers[name]
                path = self.folder / f"worker{k}" / name.replace(" ", "_") / reader.filename
                content = path.read_bytes() if path.exists() else b""
                yield Fault(name, "crash", f"exit {worker.exitcode}", "", content)
            self.workers[k] = self._start(k)

    def _is_stuck(self, k: int, worker: Any) -> bool:
        """Whether a worker took no processor time for long, or cannot hear its alarm."""
        if not self.slots[k].value:
            self.ages[k] = (0.0, time.monotonic())
            return False
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{worker.pid}/stat").read_text().rsplit(")", 1)[1].split()
            used = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
            if used > self.ages[k][0]:
                self.ages[k] = (used, time.monotonic())
        return time.monotonic() - self.ages[k][1] > STUCK

    def stop(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.join()


def fuzz(
    count: int, seed: int, folder: Path, workers: int, only: Sequence[str] = (), tell: Any = print
) -> Tally:
    """Try `count` files, dealt evenly to the readers; return what came of them."""
    readers = make_readers(folder / "own")
    chosen = [name for name in readers if not only or any(part in name for part in only)]
    tally = Tally()
    rest = {name: count // len(chosen) + (k < count % len(chosen)) for k, name in enumerate(chosen)}
    jobs = _jobs(rest, seed)
    pool = Pool(readers, folder, workers)
    told, open_jobs, job = time.monotonic(), 0, next(jobs, None)
    try:
        while job is not None or open_jobs > 0:
            while job is not None and open_jobs < 2 * workers:
                pool.jobs.put(job)
                open_jobs, job = open_jobs + 1, next(jobs, None)
            with contextlib.suppress(Exception):
                name, tried, read, faults = pool.results.get(timeout=1)
                open_jobs -= 1
                tally.tried[name] += tried
                tally.read[name] += read
                for fault in faults:
                    tally.add(fault)
                continue
            for fault in pool.crashed():
                open_jobs -= 1
                tally.tried[fault.reader] += 1
                tally.add(fault)
            if time.monotonic() - told > 60:
                told = time.monotonic()
                tell(f"{tally.tried.total():,} inputs tried, {len(tally.faults)} kinds of faults")
    finally:
        pool.stop()
    return tally


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
