"""Kills commands at random times; the same command must then give what a calm run gives."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scenarios import (
    Run,
    Scenario,
    chosen,
    finish,
    got_over,
    left_behind,
    make_inputs,
    results,
    run,
    start,
)

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
GRACE = 15
"""Seconds in which the processes of a killed command must have ended, on a busy machine."""


@dataclass(frozen=True)
class Calm:
    """What an undisturbed run gives: files whose content is always the same, and all names."""

    seconds: float
    contents: dict[str, bytes]
    names: set[str]


@dataclass(frozen=True)
class Kill:
    """One disturbance: when, with what, and whether the whole session gets it, as at Ctrl-C."""

    number: int
    scenario: Scenario
    at: float
    signal: signal.Signals
    to_all: bool

    def __str__(self) -> str:
        target = f"{'all of ' if self.to_all else ''}`{self.scenario.name}`"
        return f"kill {self.number}: {self.signal.name} to {target} at {self.at:.2f} s"


def kill_at_random(
    count: int, seed: int, folder: Path, only: Sequence[str], tell: Callable[[str], None]
) -> int:
    """Kill `count` commands, of all scenarios in turn; return how many did not get over it."""
    scenarios = chosen(only)
    if not scenarios:
        return 0
    inputs = folder / "inputs"
    make_inputs(inputs)
    calm = {}
    for scenario in scenarios:
        calm[scenario.name] = undisturbed(scenario, inputs, folder)
        tell(f"  {scenario.name}: {calm[scenario.name].seconds:.1f} s undisturbed")
    rng = random.Random(seed)
    kills = [
        _kill(rng, number, scenarios[number % len(scenarios)], calm) for number in range(count)
    ]

    def attempt(kill: Kill) -> list[str]:
        home, expected = folder / f"kill-{kill.number}", calm[kill.scenario.name]
        return disturb(kill.scenario, partial(_killed, kill), home, expected, inputs)

    survived: Counter[str] = Counter()
    for kill, sound in zip(kills, got_over(kills, attempt, tell), strict=True):
        survived[kill.scenario.name] += sound
    per_command = ", ".join(f"{name} {number}" for name, number in survived.items())
    tell(f"{survived.total()} of {count} kills survived ({per_command})")
    return count - survived.total()


def _kill(rng: random.Random, number: int, scenario: Scenario, calm: dict[str, Calm]) -> Kill:
    longest = calm[scenario.name].seconds
    at = rng.uniform(0, 1.05 * longest) if rng.random() < 0.8 else rng.uniform(0, min(1, longest))
    sent = rng.choice(SIGNALS)
    return Kill(number, scenario, at, sent, sent == signal.SIGINT and rng.random() < 0.5)


def undisturbed(scenario: Scenario, inputs: Path, folder: Path) -> Calm:
    """Run a command twice; files that differ between the two runs are compared by name only."""
    contents, seconds = [], []
    for turn in range(2):
        place = folder / f"calm-{scenario.name.replace(' ', '-')}-{turn}" / "here"
        shutil.copytree(inputs, place)
        done = run(scenario.arguments, place, f"calm-{os.getpid()}")
        if done.status:
            raise RuntimeError(f"`lglstm {' '.join(scenario.arguments)}` failed: {done.printed}")
        contents.append(results(place, scenario))
        seconds.append(done.seconds)
        shutil.rmtree(place.parent)
    first, second = contents
    stable = {name: data for name, data in first.items() if second.get(name) == data}
    return Calm(min(seconds), stable, set(first))


def disturb(
    scenario: Scenario, kill: Callable[[Path, str], Run], home: Path, calm: Calm, inputs: Path
) -> list[str]:
    """Start a command and kill it by `kill`, run it again, and say what is wrong afterwards.

    kill: takes the folder, in which the command works, and the mark of its processes.
    """
    place = home / "here"
    shutil.copytree(inputs, place)
    mark = f"{os.getpid()}-{home.name}"
    problems = _after_kill(kill(place, mark), mark)
    problems += _checked_again(scenario, place, mark, calm)
    if not problems:
        shutil.rmtree(home)
    return problems


def _checked_again(scenario: Scenario, place: Path, mark: str, calm: Calm) -> list[str]:
    """Run a killed command again; what is wrong with that, and with what it leaves."""
    problems = []
    arguments = scenario.again(place)
    again = run(arguments, place, mark)
    if again.status and "--resume" in arguments:
        again = _resumed(again, scenario, place, mark)
    if again.status:
        problems.append(f"the next run failed ({again.status}): {last(again)}")
    problems += differences(results(place, scenario), calm)
    return problems + [f"process {pid} stayed after the next run" for pid in remaining(mark)]


def _killed(kill: Kill, place: Path, mark: str) -> Run:
    began = time.monotonic()
    process = start(kill.scenario.arguments, place, mark)
    time.sleep(kill.at)
    try:
        if kill.to_all:
            os.killpg(process.pid, kill.signal)
        else:
            os.kill(process.pid, kill.signal)
    except ProcessLookupError:
        pass
    return finish(process, place, began)


def _after_kill(killed: Run, mark: str) -> list[str]:
    problems = [f"process {pid} stayed behind" for pid in remaining(mark)]
    if killed.status == 999:
        problems.append("it did not end")
    if "Traceback (most recent" in killed.printed and not _was_starting(killed.printed):
        problems.append(f"it ended with a traceback: {last(killed)}")
    return problems


def _was_starting(printed: str) -> bool:
    """Whether Ctrl-C came while Python was still importing, before any line of a command ran."""
    return "KeyboardInterrupt" in printed and "importlib._bootstrap" in printed


def _resumed(failed: Run, scenario: Scenario, place: Path, mark: str) -> Run:
    """What follows when it cannot resume: it was done, or killed in its first snapshot."""
    if "already at iteration" in failed.printed:
        return Run(0, failed.printed, failed.seconds)
    if "none of these snapshots is complete" in failed.printed:
        return run((*scenario.arguments, "--overwrite"), place, mark)
    return failed


def remaining(mark: str) -> list[int]:
    """Processes of a run that do not end within the time of grace; they are killed."""
    until = time.monotonic() + GRACE
    while (found := left_behind(mark)) and time.monotonic() < until:
        time.sleep(0.1)
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return found


def differences(found: dict[str, bytes], calm: Calm) -> list[str]:
    missing, more = sorted(calm.names - found.keys()), sorted(found.keys() - calm.names)
    other = [name for name, data in calm.contents.items() if found.get(name, data) != data]
    problems = []
    if missing:
        problems.append(f"missing: {', '.join(missing[:4])}")
    if more:
        problems.append(f"left lying: {', '.join(more[:4])}")
    if other:
        problems.append(f"other content: {', '.join(sorted(other)[:4])}")
    return problems


def last(run_: Run) -> str:
    lines = [line for line in run_.printed.splitlines() if line.strip()]
    return " / ".join(lines[-3:])[:400]
