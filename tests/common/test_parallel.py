"""Work on several processes ends when it must: with its parent, on Ctrl-C, after deaths."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from lglstm.common.child import environment, module_command
from lglstm.common.parallel import stream

PROGRAM = """
import sys, time
from lglstm.common.parallel import stream
done = [item for item, _ in stream(time.sleep, [0.05] * int(sys.argv[1]), workers=3)]
print(len(done), "done")
"""
MOMENTS = [0.0, 0.01, 0.03, 0.1, 0.3]
"""Seconds after the start of the first process: before, while and after it imports our modules."""

FOREVER = 1_000_000
PATIENCE = 60


class Program:
    """A program that works on `items` items in three processes; `mark` finds all that it starts."""

    def __init__(self, items: int) -> None:
        self.mark = f"LGLSTM_TEST_MARK={uuid.uuid4().hex}"
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(items)],
            env={**os.environ, name: value},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_workers(self) -> list[int]:
        while not (workers := self.alive() - {self.process.pid}):
            assert self.process.poll() is None
        return sorted(workers)

    def alive(self) -> set[int]:
        found = set()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes():
                    found.add(int(folder.name))
            except OSError:  # it ended meanwhile
                continue
        return found

    def ended(self) -> bool:
        """Whether nothing of the program is left, soon after."""
        deadline = time.monotonic() + PATIENCE
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self.alive()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_program_that_is_stopped_leaves_no_process(number, moment):
    program = Program(FOREVER)
    program.wait_for_workers()
    time.sleep(moment)
    program.process.send_signal(number)
    program.process.communicate(timeout=PATIENCE)
    assert program.process.returncode == -number
    assert program.ended()


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_process_that_is_killed_at_any_moment_loses_nothing(moment):
    program = Program(20)
    first = program.wait_for_workers()[0]
    time.sleep(moment)
    try:
        os.kill(first, signal.SIGKILL)
    except ProcessLookupError:  # all is done
        assert moment
    output, errors = program.process.communicate(timeout=PATIENCE)
    assert (output, errors) == ("20 done\n", "")
    assert program.ended()


def test_ctrl_c_in_a_terminal_reaches_the_program_alone():
    """Processes in its group would end with tracebacks of their own, or half-way in a file."""
    program = Program(FOREVER)
    worker = program.wait_for_workers()[0]
    while "parallel_worker" not in Path(f"/proc/{worker}/cmdline").read_text():
        time.sleep(0.01)  # it is still the copy of its parent that becomes the new program
    assert os.getpgid(worker) != os.getpgid(program.process.pid)
    program.process.kill()
    program.process.communicate()
    assert program.ended()


def test_a_process_whose_answer_nobody_takes_ends_without_a_word():
    """The system then says that the connection was reset, not that it has come to its end."""
    ours, theirs = socket.socketpair()
    with theirs:
        number = theirs.fileno()
        worker = subprocess.Popen(
            module_command("lglstm.common.parallel_worker", str(number), str(os.getpid())),
            env=environment(),
            stderr=subprocess.PIPE,
            pass_fds=[number],
        )
    with Connection(ours.detach()) as connection:
        connection.send(repr)
        connection.send(1)
        assert connection.poll(PATIENCE)
    assert worker.communicate(timeout=PATIENCE)[1] == b""
    assert worker.returncode == 0


def kill_if_odd(number: int) -> int:
    if number % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.slow
def test_only_the_items_that_kill_give_nothing():
    results = dict(stream(kill_if_odd, range(6), workers=3))
    assert results == {0: 0, 1: None, 2: 2, 3: None, 4: 4, 5: None}


def divide(number: int) -> float:
    return 1 / number


def test_what_the_function_raises_is_raised_with_the_place_where_it_was():
    with pytest.raises(ZeroDivisionError) as caught:
        list(stream(divide, [1, 0, 2], workers=2))
    assert "in divide" in caught.value.__notes__[0]


def test_items_may_be_large_and_false():
    items = [b"", b"x" * 3_000_000, None, 0, b"y" * 3_000_000]
    assert sorted(len(repr(result)) for _, result in stream(repr_of, items, workers=2)) == sorted(
        len(repr(repr_of(item))) for item in items
    )


def repr_of(item: object) -> str:
    return repr(item)


def test_a_process_leaves_a_block_by_an_exception_when_the_stream_is_closed(tmp_path):
    """So half-written files are removed."""
    results = stream(hold, [tmp_path / "quick", tmp_path / "a", tmp_path / "b"], workers=2)
    assert next(results)[0].name == "quick"
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.01)
    results.close()
    assert list(tmp_path.iterdir()) == []


def hold(path: Path) -> None:
    if path.name == "quick":
        return
    path.touch()
    try:
        time.sleep(PATIENCE)
    finally:
        path.unlink()
