"""The commands that are killed and put into hostile places: small inputs, and what comes out."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "data_prep")]

import numpy as np  # noqa: E402
from convert_help import data, layer  # noqa: E402

LGLSTM = str(Path(sys.prefix, "bin", "lglstm"))
MARK = "LGLSTM_HARD"
"""In the environment of all processes of one run, by which those that stay behind are found."""

PATIENCE = 240
"""Seconds that any command here may take on a busy machine; they take some."""

AT_ONCE = 2
"""Commands that run at the same time."""

Try = TypeVar("Try")

TIMES = {"seconds", "data_seconds", "finished"}


@dataclass(frozen=True)
class Scenario:
    """A command in a folder of its own that holds copies of the inputs.

    arguments: of `lglstm`. resume: whether it has --resume, when snapshots are there.
    ignored: suffixes of files that may differ from run to run, such as journals, which keep the
        order in which processes finished and what a killed run left.
    """

    name: str
    arguments: tuple[str, ...]
    resume: bool = False
    ignored: tuple[str, ...] = (".log", ".png.json", ".html", ".pdf", ".jsonl")

    def again(self, folder: Path) -> tuple[str, ...]:
        """The arguments that continue what an interrupted run began."""
        begun = self.resume and any(folder.glob("runs/*.solverstate"))
        return (*self.arguments, "--resume") if begun else self.arguments


SCENARIOS = (
    Scenario("train", ("train", "nets/solver.prototxt", "--cpu"), resume=True),
    Scenario("data", ("data", "horse-cow", "drawn", "prepared", "--whole", "--workers", "2",
                      "--train", "drawn/ImageSets/train.txt",
                      "--test", "drawn/ImageSets/test.txt")),
    Scenario("pairs", ("data", "pairs", "set/images", "set/labels", "paired", "--labels", "horse",
                       "--workers", "2")),
    Scenario("synthetic", ("data", "synthetic", "more", "--train", "6", "--test", "2",
                           "--size", "33")),
    Scenario("check", ("data", "check", "set", "--workers", "2", "--label-set", "horse",
                       "--json")),
    Scenario("evaluate", ("evaluate", "nets/deploy.prototxt", "--weights", "nets/w.caffemodel",
                          "--list", "set/test.txt", "--labels", "horse", "--output", "scored",
                          "--cpu")),
    Scenario("predict", ("predict", "nets/deploy.prototxt", "set/images", "--weights",
                         "nets/w.caffemodel", "--labels", "horse", "--output", "parsed", "--cpu",
                         "--scores")),
    *(
        Scenario(f"convert {kind}", ("convert", "nets/deploy.prototxt", "nets/w.caffemodel",
                                     "--to", kind, "--output", f"made/w.{suffix}"))
        for kind, suffix in (("npz", "npz"), ("safetensors", "safetensors"), ("hdf5", "h5"),
                             ("onnx", "onnx"))
    ),
    Scenario("init-weights", ("init-weights", "nets/vgg.prototxt", "--from", "vgg.npz",
                              "--output", "made/init.caffemodel")),
    Scenario("generate", ("models", "generate", "demo", "--set", "hidden=8", "--name", "own")),
)  # fmt: skip

SOLVER = """train_net: "nets/train.prototxt"
test_net: "nets/test.prototxt" test_iter: 5 test_interval: 3
base_lr: 0.01 lr_policy: "step" gamma: 0.5 stepsize: 3 momentum: 0.9 max_iter: 6
snapshot: 1 snapshot_prefix: "runs/small" display: 3 random_seed: 3 solver_mode: CPU
"""
"""With a snapshot in every iteration, that of a run that was stopped is none that others lack."""


def make_inputs(folder: Path) -> None:
    """Everything that the scenarios read, below `folder`."""
    from evaluation_help import color_list, color_net
    from fuzz_readers import LAYERS, _small_vgg

    folder.mkdir(parents=True)
    (folder / "nets").mkdir()
    color_list(folder / "set", ((24, 40), (48, 80), (72, 120), (24, 40), (48, 80)))
    color_list(folder / "other", ((24, 40), (48, 80), (72, 120)), seed=1)
    weights = color_net(folder / "nets")[1]
    weights.rename(folder / "nets/w.caffemodel")
    (folder / "nets/train.prototxt").write_text(_net("other/test.txt", train=True))
    (folder / "nets/test.prototxt").write_text(_net("set/test.txt", train=False))
    (folder / "nets/solver.prototxt").write_text(SOLVER)
    vgg = _small_vgg()
    np.savez(folder / "vgg.npz", **vgg)
    text, before = data(1, 3, 64, 64), "data"
    for name in LAYERS:
        options = f"num_output: 2 kernel_size: {vgg[f'{name}_w'].shape[2]} pad: 1"
        text += layer("Convolution", name, before, name, f"convolution_param {{ {options} }}")
        before = name
    (folder / "nets/vgg.prototxt").write_text(text)
    words = ["data", "synthetic", "drawn", "--train", "12", "--test", "4", "--size", "65"]
    subprocess.run([LGLSTM, *words], cwd=folder, check=True, capture_output=True)


def _net(names: str, train: bool) -> str:
    """A convolution and its loss on the photos of a list, to train with or to test."""
    options = {
        "list": names, "batch_size": 2 if train else 1, "input_size": [24, 40], "num_classes": 5,
        "train": train, "seed": 5, "workers": 1, "mirror": train,
    }  # fmt: skip
    words = 'module: "lglstm.layers.seg_data" layer: "SegData" '
    words += f"param_str: {json.dumps(json.dumps(options))}"
    position = "param { lr_mult: 0 decay_mult: 0 }" if train else ""
    text = layer(
        "Python",
        "data" if train else "test_data",
        "",
        "data label",
        f"{position} python_param {{ {words} }}",
    )
    filler = 'weight_filler { type: "gaussian" std: 0.001 }'
    words = f"convolution_param {{ num_output: 5 kernel_size: 3 pad: 1 {filler} }}"
    text += layer("Convolution", "score", "data", "score", words)
    return text + layer(
        "SoftmaxWithLoss", "loss", "score label", "loss", "loss_param { ignore_label: 255 }"
    )


# --- Running --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A command's end: exit status (negative: the signal), what it printed, how long it took."""

    status: int
    printed: str
    seconds: float


def environment(folder: Path, mark: str) -> dict[str, str]:
    (folder / "tmp").mkdir(exist_ok=True)
    return os.environ | {"TMPDIR": str(folder / "tmp"), MARK: mark, "OMP_NUM_THREADS": "1"}


def chosen(only: Sequence[str]) -> list[Scenario]:
    """The scenarios in whose names one of `only` is, or all."""
    return [s for s in SCENARIOS if not only or any(part in s.name for part in only)]


def got_over(
    tries: Sequence[Try], attempt: Callable[[Try], list[str]], tell: Callable[[str], None]
) -> list[bool]:
    """Make all tries, some at a time; tell what went wrong, and return for each if nothing did."""
    sound = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for one, problems in zip(tries, pool.map(attempt, tries), strict=True):
            sound.append(not problems)
            for problem in problems:
                tell(f"FAULT {one}: {problem}")
    return sound


def start(
    arguments: tuple[str, ...],
    folder: Path,
    mark: str,
    before: tuple[str, ...] = (),
    **options: object,
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own; it prints into `folder`.out.

    before: a program that starts it, such as a tracer, and its arguments.
    """
    out = folder.with_suffix(".out").open("wb")
    command = [*before, LGLSTM, *arguments]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(folder, mark),
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=out,
        start_new_session=True,
        **options,  # type: ignore[call-overload]
    )
    out.close()
    return process


def finish(process: subprocess.Popen[bytes], folder: Path, began: float) -> Run:
    try:
        status = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        status = 999
    printed = folder.with_suffix(".out").read_text(errors="replace")
    return Run(status, printed, time.monotonic() - began)


def run(arguments: tuple[str, ...], folder: Path, mark: str, **options: object) -> Run:
    began = time.monotonic()
    return finish(start(arguments, folder, mark, **options), folder, began)


def left_behind(mark: str) -> list[int]:
    """Processes that still have the mark in their environment."""
    wanted, found = f"{MARK}={mark}\0".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in path.read_bytes() + b"\0" and _is_running(path.parent):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def _is_running(process: Path) -> bool:
    return (process / "stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"


# --- Results --------------------------------------------------------------------------------------


def results(folder: Path, scenario: Scenario) -> dict[str, bytes]:
    """What is below a folder: the content of each file, without times of day and durations."""
    return {
        name: b"" if name.endswith(scenario.ignored) else _content(path)
        for name, path in _files(folder)
    }


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _is_python_s(path):
            yield str(path.relative_to(folder)), path


def _is_python_s(path: Path) -> bool:
    """Whether it is a file by which Python's tempfile tried its folder, when it was killed."""
    tried = path.parent.name == "tmp" and re.fullmatch(r"[a-z0-9_]{8}", path.name)
    return bool(tried) and path.read_bytes() in (b"", b"blat")


def _content(path: Path) -> bytes:
    clean: Callable[[bytes], bytes] | None = {
        ".json": _without_times,
        ".csv": _without_columns,
    }.get(path.suffix)
    content = path.read_bytes()
    return clean(content) if clean else content


def _without_times(content: bytes) -> bytes:
    try:
        tree = json.loads(content)
    except ValueError:
        return content
    if isinstance(tree, dict):
        tree = {key: value for key, value in tree.items() if key not in TIMES}
    return json.dumps(tree).encode()


def _without_columns(content: bytes) -> bytes:
    rows = list(csv.DictReader(io.StringIO(content.decode(errors="replace"))))
    return json.dumps([{k: v for k, v in row.items() if k not in TIMES} for row in rows]).encode()
