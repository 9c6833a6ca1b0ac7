"""Runs Caffe in a process of its own.

Caffe ends the process on an error, writes its log to stderr, and brings a protobuf library that
need not be that of other frameworks: none of this belongs in the converter's process.

    python -m lglstm.convert.caffe_process PARENT NET WEIGHTS INPUTS.npz OUTPUTS.npz STAGES BLOB...
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lglstm.common import child
from lglstm.common.errors import InputError
from lglstm.common.paths import utf8_path
from lglstm.common.scratch import scratch_folder

Blobs = dict[str, np.ndarray]

_FATAL = re.compile(r"^F\d+ \S+ +\d+ \S+\] (.*)$", re.MULTILINE)
"""A line of Caffe's log, with what it says: `F0612 09:30:00.1 77 net.cpp:40] Check failed: …`."""


def caffe_is_there() -> bool:
    """Whether pycaffe is installed."""
    return importlib.util.find_spec("caffe") is not None


@functools.cache
def caffe_version() -> str:
    """The version that Caffe states; "?" if it cannot be imported."""
    return _run("lglstm.cli.caffe_probe", "--version").stdout.strip() or "?"


def run_caffe(
    prototxt: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    inputs: Sequence[Blobs],
    wanted: Sequence[str],
    stages: Sequence[str] = (),
) -> list[Blobs]:
    """Run the net in phase TEST on each set of inputs; return the wanted blobs of each.

    The net takes the inputs' shapes. stages: those that the net is in. Raises InputError with
    Caffe's own words if it fails.
    """
    with scratch_folder() as folder:
        given, made = folder / "inputs.npz", folder / "outputs.npz"
        _save(given, inputs)
        files = (prototxt, weights, given, made)
        result = _run(__name__, str(os.getpid()), *files, ",".join(stages), *wanted)
        if result.returncode:
            words = _words(result)
            raise InputError(
                f"{prototxt}: Caffe failed on it ({words}); see whether `caffe test` runs it"
            )
        return _load(made, len(inputs))


@functools.lru_cache(16)
def why_not_built(net: str) -> str | None:
    """Why Caffe cannot build a net for predictions, in its own words; None if it can.

    net: the text of its prototxt. It is handed over in memory, so that no kill leaves a file.
    """
    with _as_file(net) as handle:
        result = _run("lglstm.convert.caffe_build", str(os.getpid()), stdin=handle)
    return _words(result) if result.returncode else None


@contextlib.contextmanager
def _as_file(text: str) -> Iterator[int]:
    handle = os.memfd_create("net.prototxt")
    try:
        with open(handle, "w", encoding="utf-8", closefd=False) as file:
            file.write(text)
        yield handle
    finally:
        os.close(handle)


def _run(
    module: str, *arguments: str | os.PathLike[str], stdin: int | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        child.module_command(module, *arguments),
        env=child.environment(GLOG_minloglevel="2"),
        stdin=stdin,
        capture_output=True,
        text=True,
        errors="replace",
    )


def _words(failed: subprocess.CompletedProcess[str]) -> str:
    """What a process says that failed: the check that ended it, without its stack, or the end."""
    fatal = _FATAL.search(failed.stderr)
    words = fatal[1] if fatal else failed.stderr
    return " ".join(words.split()[-60:]) or f"status {failed.returncode}"


def _save(path: Path, sets: Sequence[Blobs]) -> None:
    arrays = {f"{i}:{name}": a for i, blobs in enumerate(sets) for name, a in blobs.items()}
    np.savez(path, **arrays)  # type: ignore[arg-type]


def _load(path: Path, count: int) -> list[Blobs]:
    sets: list[Blobs] = [{} for _ in range(count)]
    with np.load(path, allow_pickle=False) as file:
        for key in file.files:
            index, name = key.split(":", 1)
            sets[int(index)][name] = file[key]
    return sets


def _main(
    parent: str, prototxt: str, weights: str, given: str, made: str, stages: str, *wanted: str
) -> None:
    child.end_with_parent(int(parent))
    import caffe

    with np.load(given, allow_pickle=False) as file:
        count = 1 + max(int(key.split(":", 1)[0]) for key in file.files)
    net = caffe.Net(
        utf8_path(prototxt),
        caffe.TEST,
        weights=utf8_path(weights),
        stages=stages.split(",") if stages else None,
    )
    results = []
    for inputs in _load(Path(given), count):
        for name, array in inputs.items():
            net.blobs[name].reshape(*array.shape)
            net.blobs[name].data[...] = array
        net.forward()
        results.append({name: net.blobs[name].data.copy() for name in wanted})
    _save(Path(made), results)


if __name__ == "__main__":
    _main(*sys.argv[1:])
