"""Commands on a full disk, without a reader, with an odd input, or two of the same at once.

Each says one sentence at most, leaves nothing lying, and the next run gives what a calm one gives.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kills import Calm, differences, last, remaining, undisturbed
from scenarios import (
    LGLSTM,
    Run,
    Scenario,
    chosen,
    environment,
    finish,
    got_over,
    make_inputs,
    results,
    run,
    start,
)

INPUTS = {
    "train": ("nets/solver.prototxt", "nets/train.prototxt", "nets/test.prototxt", "other/test.txt",
              "other/images/photo1.png", "other/labels/photo1.png"),
    "data": ("drawn/ImageSets/train.txt", "drawn/JPEGImages", "drawn/Annotations_Part"),
    "check": ("set/test.txt", "set/images/photo1.png", "set/labels/photo0.png"),
    "evaluate": ("nets/deploy.prototxt", "nets/w.caffemodel", "set/test.txt",
                 "set/images/photo2.png", "set/labels/photo2.png"),
    "predict": ("nets/deploy.prototxt", "nets/w.caffemodel", "set/images/photo0.png"),
    "convert": ("nets/deploy.prototxt", "nets/w.caffemodel"),
    "init-weights": ("nets/vgg.prototxt", "vgg.npz"),
}  # fmt: skip
"""What each command reads."""

OUTPUTS = {
    "train": "runs", "data": "prepared", "synthetic": "more", "evaluate": "scored",
    "predict": "parsed", "convert": "made", "init-weights": "made", "generate": "models",
}  # fmt: skip

KINDS = ("empty", "folder", "pipe", "loop", "endless", "missing", "noise", "cut")
TRACES = ("Traceback (most recent", "Check failed", "terminate called", "Segmentation fault")


@dataclass(frozen=True)
class Place:
    """One try: what is odd, and with what number or file."""

    number: int
    scenario: Scenario
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"place {self.number}: `{self.scenario.name}`, {self.kind} {self.detail}".rstrip()


def try_places(
    count: int, seed: int, folder: Path, only: Sequence[str], tell: Callable[[str], None]
) -> int:
    """Try `count` places, of all kinds in turn; return how many were not got over."""
    scenarios = chosen(only)
    if not scenarios:
        return 0
    inputs = folder / "inputs"
    if not inputs.exists():
        make_inputs(inputs)
    rng = random.Random(seed)
    places = [_place(rng, number, scenarios) for number in range(count)]
    used = {place.scenario.name: place.scenario for place in places}
    calm = {name: undisturbed(scenario, inputs, folder) for name, scenario in used.items()}

    def problems(place: Place) -> list[str]:
        return attempt(place, calm[place.scenario.name], inputs, folder)

    sound = got_over(places, problems, tell)
    tell(f"{sum(sound)} of {count} places got over")
    return count - sum(sound)


def _place(rng: random.Random, number: int, scenarios: Sequence[Scenario]) -> Place:
    scenario = scenarios[number % len(scenarios)]
    name = scenario.name.split()[0]
    kind = rng.choice(
        ("file size", "disk", "full output", "closed output", "twice", "input", "input")
    )
    detail = ""
    if kind in ("file size", "disk"):
        detail = str(rng.choice((0, 1, 4, 16, 64)))
    elif kind == "input":
        if name not in INPUTS:
            return Place(number, scenario, "twice", "")
        detail = f"{rng.choice(INPUTS[name])} {rng.choice(KINDS)}"
    return Place(number, scenario, kind, detail)


def attempt(place: Place, calm: Calm, inputs: Path, folder: Path) -> list[str]:
    home = folder / f"place-{place.number}" / "here"
    shutil.copytree(inputs, home)
    mark = f"{os.getpid()}-place-{place.number}"
    ended = _ODD[place.kind](place, home, mark)
    problems = [f"process {pid} stayed behind" for pid in remaining(mark)]
    for done in ended:
        if done.status == 999:
            problems.append("it did not end")
        if any(trace in done.printed for trace in TRACES):
            problems.append(f"no sentence, but: {last(done)}")
    if place.kind == "input":
        _restore(home, inputs, place.detail.split()[0])
    again = run(place.scenario.again(home), home, mark)
    if again.status and "already at iteration" not in again.printed:
        problems.append(f"the next run failed ({again.status}): {last(again)}")
    problems += differences(results(home, place.scenario), calm)
    if not problems:
        shutil.rmtree(home.parent)
    return problems


def _small_files(place: Place, home: Path, mark: str) -> list[Run]:
    """No file may be larger than so many KiB: writes fail as on a full disk."""
    most = int(place.detail) << 10
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    return [run(place.scenario.arguments, home, mark, preexec_fn=limit)]


def _small_disk(place: Place, home: Path, mark: str) -> list[Run]:
    """The output folder is a disk of so many KiB, in a mount namespace that ends with the command.

    Where that is not allowed, files are limited instead.
    """
    name = OUTPUTS.get(place.scenario.name.split()[0])
    if name is None or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        return _small_files(place, home, mark)
    (home / name).mkdir(exist_ok=True)
    size = max(4, int(place.detail))
    script = f'mount -t tmpfs -o size={size}k tmpfs "$1" || exit 0; shift; exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", name, LGLSTM, *place.scenario.arguments]
    return [_run_command(command, home, mark)]


def _run_command(command: list[str], home: Path, mark: str) -> Run:
    began = time.monotonic()
    with home.with_suffix(".out").open("wb") as out:
        process = subprocess.Popen(
            command, cwd=home, env=environment(home, mark), stdin=subprocess.DEVNULL, stdout=out,
            stderr=out, start_new_session=True,
        )  # fmt: skip
    return finish(process, home, began)


def _full_output(place: Place, home: Path, mark: str) -> list[Run]:
    script = 'exec "$@" >/dev/full'
    return [_run_command(["sh", "-c", script, "sh", LGLSTM, *place.scenario.arguments], home, mark)]


def _closed_output(place: Place, home: Path, mark: str) -> list[Run]:
    """Whoever reads the output goes away after its first line."""
    script = '{ "$@" 2>&1 1>&3 | head -n 1; } 3>&1 | head -n 1'
    return [_run_command(["sh", "-c", script, "sh", LGLSTM, *place.scenario.arguments], home, mark)]


def _twice(place: Place, home: Path, mark: str) -> list[Run]:
    """Two of the same at once; one of them may say that the other is at work."""
    began = time.monotonic()
    other_home = home.with_name("other")
    first = start(place.scenario.arguments, home, mark)
    with other_home.with_suffix(".out").open("wb") as out:
        second = subprocess.Popen(
            [LGLSTM, *place.scenario.arguments], cwd=home, env=environment(home, mark),
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    return [finish(first, home, began), finish(second, other_home, began)]


def _odd_input(place: Place, home: Path, mark: str) -> list[Run]:
    name, kind = place.detail.split()
    _replace(home / name, kind)
    return [run(place.scenario.arguments, home, mark)]


def _replace(path: Path, kind: str) -> None:
    content = path.read_bytes() if path.is_file() else b""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    match kind:
        case "empty":
            path.touch()
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path.name)
        case "endless":
            path.symlink_to("/dev/zero")
        case "noise":
            path.write_bytes(random.Random(1).randbytes(2000))
        case "cut":
            # Not between two lines: a list of fewer names would be a sound one.
            path.write_bytes(content[: len(content) // 2].rstrip()[:-2])


def _restore(home: Path, inputs: Path, name: str) -> None:
    path = home / name
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    (shutil.copytree if (inputs / name).is_dir() else shutil.copy2)(inputs / name, path)


_ODD: dict[str, Callable[[Place, Path, str], list[Run]]] = {
    "file size": _small_files,
    "disk": _small_disk,
    "full output": _full_output,
    "closed output": _closed_output,
    "twice": _twice,
    "input": _odd_input,
}
