"""Kills commands at each system call that changes a file, one after the other, with strace.

Between two such calls nothing on the disk changes, so these are all the states that a kill can
leave, apart from what several processes do at once.
"""

from __future__ import annotations

import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kills import disturb, undisturbed
from scenarios import Run, Scenario, chosen, finish, got_over, make_inputs, start

CALLS = (
    "write", "pwrite64", "writev", "ftruncate", "fsync", "rename", "renameat", "renameat2", "link",
    "linkat", "unlink", "unlinkat", "mkdir", "rmdir", "copy_file_range", "sendfile",
)  # fmt: skip
_CALL = re.compile(r"^(\d+) +(\w+)\(")


@dataclass(frozen=True)
class Step:
    """The call number `nth` of its name, counted from 1, in whichever thread comes to it first."""

    number: int
    scenario: Scenario
    call: str
    nth: int

    def __str__(self) -> str:
        return f"step {self.number}: SIGKILL to `{self.scenario.name}` at {self.call} {self.nth}"


def kill_at_steps(
    count: int, seed: int, folder: Path, only: Sequence[str], tell: Callable[[str], None]
) -> int:
    """Kill at `count` steps, drawn from all those of all scenarios; return how many did harm."""
    if shutil.which("strace") is None:
        tell("no kills at system calls: strace is not installed")
        return 0
    inputs = folder / "inputs"
    if not inputs.exists():
        make_inputs(inputs)
    calm, every = {}, []
    for scenario in chosen(only):
        calm[scenario.name] = undisturbed(scenario, inputs, folder)
        steps = _steps(scenario, inputs, folder)
        every += [(scenario, call, nth) for call, most in steps for nth in range(1, most + 1)]
        tell(f"  {scenario.name}: {sum(most for _, most in steps)} calls change files")
    drawn = random.Random(seed).sample(every, min(count, len(every)))
    tries = [Step(number, *step) for number, step in enumerate(drawn)]

    def attempt(step: Step) -> list[str]:
        home, expected = folder / f"step-{step.number}", calm[step.scenario.name]
        return disturb(step.scenario, partial(_killed, step), home, expected, inputs)

    sound = got_over(tries, attempt, tell)
    tell(f"{sum(sound)} of {len(tries)} kills at system calls survived ({len(every)} there are)")
    return len(tries) - sum(sound)


def _steps(scenario: Scenario, inputs: Path, folder: Path) -> list[tuple[str, int]]:
    """How often the busiest thread of a calm run makes each call."""
    place = folder / f"steps-{scenario.name.replace(' ', '-')}" / "here"
    shutil.copytree(inputs, place)
    trace = place.with_suffix(".trace")
    done = _traced(scenario, place, "steps", "-o", str(trace), "-e", f"trace={','.join(CALLS)}")
    if done.status:
        raise RuntimeError(f"`{scenario.name}` failed under strace: {done.printed}")
    found = filter(None, map(_CALL.match, trace.read_text(errors="replace").splitlines()))
    by_thread = Counter(match.groups() for match in found)
    shutil.rmtree(place.parent)
    most = {call: max((n for (_, c), n in by_thread.items() if c == call), default=0)
            for call in CALLS}  # fmt: skip
    return [(call, number) for call, number in most.items() if number]


def _traced(scenario: Scenario, place: Path, mark: str, *options: str) -> Run:
    began = time.monotonic()
    words = ("strace", "-f", "-qq", *options)
    return finish(start(scenario.arguments, place, mark, before=words), place, began)


def _killed(step: Step, place: Path, mark: str) -> Run:
    inject = f"inject={step.call}:signal=KILL:when={step.nth}"
    options = ("-o", "/dev/null", "-e", f"trace={step.call}", "-e", inject)
    return _traced(step.scenario, place, mark, *options)
