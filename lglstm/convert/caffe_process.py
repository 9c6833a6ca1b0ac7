"""Runs Caffe in a process of its own.

Caffe ends the process on an error, writes its log to stderr, and brings a protobuf library that
need not be that of other frameworks: none of this belongs in the converter's process.

    python -m lglstm.convert.caffe_process PARENT NET WEIGHTS INPUTS.npz OUTPUTS.npz STAGES BLOB...
"""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lglstm.common import child
from lglstm.common.errors import InputError
from lglstm.common.paths import utf8_path
from lglstm.common.scratch import scratch_folder

Blobs = dict[str, np.ndarray]


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
            words = " ".join(result.stderr.split()[-60:]) or f"status {result.returncode}"
            raise InputError(
                f"{prototxt}: Caffe failed on it ({words}); see whether `caffe test` runs it"
            )
        return _load(made, len(inputs))


def _run(module: str, *arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        child.module_command(module, *arguments),
        env=child.environment(GLOG_minloglevel="2"),
        capture_output=True,
        text=True,
        errors="replace",
    )


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
