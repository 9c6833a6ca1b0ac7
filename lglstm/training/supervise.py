"""Runs a plan in processes of its own, keeps Caffe's log, and says why Caffe aborted if it did."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import IO, NamedTuple

import caffe

from lglstm.common import child
from lglstm.common.errors import InputError
from lglstm.common.steady_streams import SteadyStream
from lglstm.training import snapshots
from lglstm.training.plan import TrainingPlan
from lglstm.training.stop import SIGNALS

POLL_SECONDS = 0.05
# The progress bar hides the cursor; a process that died could not bring it back.
SHOW_CURSOR = "\x1b[?25h"
_GLOG = re.compile(r"([IWEF])\d{4,8} [\d:.]+ +\d+ (\S+:\d+)\] ?(.*)")
_CREATING = re.compile(r"Creating Layer (.+)")
_SNAPSHOT = re.compile(r"Snapshotting .*to binary proto file (.+)")
_MISMATCH = re.compile(
    r"Cannot copy param \d+ weights from layer '(.+)'; shape mismatch\. +Source param shape is "
    r"([\d ]+) \(\d+\); target param shape is ([\d ]+) \(\d+\)"
)
_LIBRARY_ERROR = re.compile(r"\[libprotobuf (?:ERROR|FATAL) \S+\] ?(.*)")


class CaffeLog:
    """Sorts what Caffe writes to its error stream: all into the log, errors to the user as well.

    `fatal` is the reason of a failed check, once there is one, with the layer that was being made.
    `writing` is the file of a snapshot that Caffe began last.
    """

    def __init__(self, path: Path, file: SteadyStream, verbose: bool):
        self.path, self.file, self.verbose = path, file, verbose
        self.writable = True
        self.fatal = ""
        self.writing = ""
        self.tail: deque[str] = deque(maxlen=3)
        self._in_fatal = False
        self._layer = ""

    def feed(self, line: str) -> None:
        self._keep(line)
        if self.verbose:
            sys.stderr.write(line)
        self._sort(line.rstrip("\n"))

    def _keep(self, line: str) -> None:
        """Write to the file; a full disk must not stop the reading, on which Caffe waits."""
        self.file.write(line)
        reason = self.file.loss()
        if reason and self.writable:
            print(f"warning: {self.path}: {reason}", file=sys.stderr)
            self.writable = False

    def _sort(self, line: str) -> None:
        if match := _GLOG.match(line):
            level, place, text = match.groups()
            self._in_fatal = level == "F" and not self.fatal
            if self._in_fatal:
                self.fatal = f"{self._layer}{text.strip()} ({place})"
            elif level == "E":
                self._show(text)
            elif snapshot := _SNAPSHOT.match(text):
                self.writing = snapshot[1]
            elif creating := _CREATING.match(text):
                self._layer = f"layer '{creating[1]}': "
            elif text.startswith("Network initialization done"):
                self._layer = ""
        elif error := _LIBRARY_ERROR.match(line):
            self._show(error[1])
        elif line.startswith("***"):
            self._in_fatal = False
        elif self._in_fatal and line.strip():
            self.fatal += f" {line.strip()}"
        elif line.strip() and not line.startswith("    @"):
            self.tail.append(line.strip())

    def _show(self, text: str) -> None:
        self.tail.append(text)
        if not self.verbose:
            print(f"Caffe: {text}", file=sys.stderr)


def run(plan: TrainingPlan) -> int:
    """Train by `plan` in one process per device; return the exit status for the shell.

    0 finished, 1 failed or diverged, 128 + n stopped by signal n after a snapshot.
    """
    try:
        start = os.O_APPEND if plan.resume else os.O_TRUNC
        file = os.open(plan.log, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | start, 0o666)
    except OSError as error:
        raise InputError(f"{plan.log}: cannot be written ({error.strerror}); check it") from error
    with SteadyStream(file, encoding="utf-8") as steady:
        log = CaffeLog(plan.log, steady, plan.verbose)
        workers = [_start(part, log) for part in _parts(plan)]
        stop = _SignalForwarder(workers)
        try:
            status = _wait(workers)
        finally:
            stop.restore()
    return _explain(status, log, plan, stop)


def _parts(plan: TrainingPlan) -> list[TrainingPlan]:
    if len(plan.gpus) < 2:
        return [plan]
    nccl_id = caffe.NCCL.new_uid().hex()
    return [replace(plan, rank=rank, nccl_id=nccl_id) for rank in range(len(plan.gpus))]


class _Worker(NamedTuple):
    """A training process and the thread that reads its error stream."""

    process: subprocess.Popen[str]
    reader: threading.Thread


def _start(plan: TrainingPlan, log: CaffeLog) -> _Worker:
    user = os.dup(2)
    process = subprocess.Popen(
        child.module_command("lglstm.training.worker", str(user), str(os.getpid())),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=plan.folder,
        pass_fds=[user],
        # The terminal's Ctrl-C reaches only the supervisor, which passes it on once.
        process_group=0,
        env=child.environment(GLOG_minloglevel="0"),
    )
    os.close(user)
    assert process.stdin is not None and process.stderr is not None  # pipes, as asked for
    process.stdin.write(plan.to_json())
    process.stdin.close()
    reader = threading.Thread(target=_feed, args=(log, process.stderr))
    reader.start()
    return _Worker(process, reader)


def _feed(log: CaffeLog, lines: IO[str]) -> None:
    for line in lines:
        log.feed(line)


class _SignalForwarder:
    """Passes the first stop signal on to the workers; the second kills them."""

    def __init__(self, workers: list[_Worker]):
        self.workers = workers
        self.received: int | None = None
        self.before = {number: signal.signal(number, self._forward) for number in SIGNALS}

    def _forward(self, number: int, frame: object) -> None:
        again = self.received is not None
        self.received = self.received or number
        for worker in self.workers:
            worker.process.send_signal(signal.SIGKILL if again else number)

    def restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def _wait(workers: list[_Worker]) -> int:
    """The status of the first process, or of the first one that failed; the others then end too."""
    while all(worker.process.poll() is None for worker in workers):
        time.sleep(POLL_SECONDS)
    ended = next(worker for worker in workers if worker.process.poll() is not None)
    for worker in workers:
        if worker.process.poll() is None and (worker is not workers[0] or ended.process.returncode):
            worker.process.kill()
        worker.process.wait()
        worker.reader.join()
    return ended.process.returncode or workers[0].process.returncode


def _unwritten(path: Path, plan: TrainingPlan) -> str:
    """What to say of a snapshot that Caffe could not write; what there is of it is removed."""
    reason = snapshots.why_unwritable(path)
    path.unlink(missing_ok=True)
    before = next(iter(snapshots.find(plan.prefix)), "none yet")
    return (
        f"{path}: the snapshot cannot be written ({reason}); the one before is {before}; free "
        "some space or set right what is in the way, then continue with --resume"
    )


def _other_shape(layer: str, theirs: str, ours: str) -> str:
    """What to say of initial weights with a layer of this net's, such as another classifier."""
    return (
        f"layer '{layer}' of the initial weights has the shape {theirs.replace(' ', '×')}, not "
        f"{ours.replace(' ', '×')} as in this net; `lglstm init-weights MODEL --from FILE -o NEW` "
        "takes the backbone alone, for --weights NEW"
    )


def _explain(status: int, log: CaffeLog, plan: TrainingPlan, stop: _SignalForwarder) -> int:
    """Turn the death of a worker into one sentence, and its status into ours."""
    if status >= 0:
        return status
    if stop.received is not None:
        return 128 + stop.received
    name = signal.Signals(-status).name
    if log.writing and snapshots.UNWRITTEN in log.fatal:
        reason = _unwritten(Path(plan.folder, log.writing), plan)
    elif mismatch := _MISMATCH.search(log.fatal):
        reason = _other_shape(*mismatch.groups())
    elif log.fatal:
        reason = f"Caffe stopped: {log.fatal}"
    elif -status == signal.SIGKILL:
        reason = "the training process was killed (SIGKILL), often for want of memory"
    else:
        reason = f"the training process died ({name})" + "".join(f"; {t}" for t in log.tail)
    log_name = os.path.relpath(Path(plan.log))
    if sys.stderr.isatty():
        print(f"\n{SHOW_CURSOR}", end="", file=sys.stderr)
    print(f"error: {reason}; Caffe's whole log is {log_name}", file=sys.stderr)
    return 1
