"""Caffe's snapshots: finding them, telling whole ones from broken ones, and their size.

A snapshot is a pair of files, `<prefix>_iter_<k>.caffemodel` (the weights) and `.solverstate` (the
iteration, the solver's momentum and the name of the weights). Caffe writes them in this order
and in place, so that a process killed while writing leaves a truncated file. What happens to a file
later, the fingerprints in the run's record tell.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lglstm.caffe_files.caffemodel import StoredLayer, read_caffemodel
from lglstm.caffe_files.layer_types import Shape
from lglstm.caffe_files.schema import SolverParameter
from lglstm.caffe_files.solverstate import read_solverstate
from lglstm.common.errors import InputError
from lglstm.common.files import sync_to_disk
from lglstm.training.record import RunRecord

# Blobs that each type of solver keeps per learnable parameter.
HISTORY = {"Adam": 2, "AdaDelta": 2}
BYTES_PER_NUMBER = 4
# Names, shapes and layer parameters around the numbers.
OVERHEAD = 1 << 16

# Of a failed check: all that Caffe says of a snapshot that does not fit on the disk.
UNWRITTEN = "SerializeToOstream"

logger = logging.getLogger(__name__)

Content = TypeVar("Content")


class BrokenSnapshot(Exception):
    """Why a snapshot cannot be resumed from."""


def iteration(state: Path) -> int:
    """The iteration in the name of a snapshot's file."""
    return int(state.stem.rpartition("_iter_")[2])


def path_at(prefix: str | Path, number: int) -> Path:
    return Path(f"{prefix}_iter_{number}.solverstate")


def find(prefix: str | Path) -> list[Path]:
    """The .solverstate files of a prefix, newest (highest iteration) first; whole or not."""
    return sorted(_files(Path(prefix), "solverstate"), key=iteration, reverse=True)


def find_weights(prefix: str | Path) -> list[Path]:
    """The .caffemodel files of a prefix, newest first, with their .solverstate or without."""
    found = (path for path in _files(Path(prefix), "caffemodel") if path.is_file())
    return sorted(found, key=iteration, reverse=True)


def sweep_probes(prefix: Path) -> None:
    """Delete the empty files by which Caffe tries the place, left by runs that were killed."""
    for path in _files(prefix, "tempfile"):
        with contextlib.suppress(OSError):
            if path.lstat().st_size == 0:
                path.unlink()


def _files(prefix: Path, suffix: str) -> list[Path]:
    pattern = re.compile(re.escape(prefix.name) + rf"_iter_\d+\.{suffix}")
    return [path for path in prefix.parent.glob(f"*.{suffix}") if pattern.fullmatch(path.name)]


def newest_good(
    prefix: str | Path, record: RunRecord | None = None, folder: Path | None = None
) -> Path:
    """The newest snapshot that is whole; a broken one is skipped with a warning.

    folder: where a path to weights starts from that a snapshot names.
    """
    for state in find(prefix):
        try:
            verify(state, record, folder)
        except BrokenSnapshot as error:
            logger.warning("%s; trying the one before", error)
        else:
            return state
    raise InputError(
        f"{prefix}_iter_*.solverstate: none of these snapshots is complete; start again with "
        "--overwrite, or with --weights from a .caffemodel that is"
    )


def verify(state: Path, record: RunRecord | None = None, folder: Path | None = None) -> None:
    """Raise BrokenSnapshot unless both files of the pair are whole and belong to each other.

    record: with the fingerprints of when they were written, as far as the run took them.
    """
    model = state.with_suffix(".caffemodel")
    stored = _whole(state, read_solverstate)
    if not stored.is_complete:
        raise BrokenSnapshot(f"{state}: is truncated")
    if stored.iteration != iteration(state):
        raise BrokenSnapshot(f"{state}: holds iteration {stored.iteration}, not that of its name")
    if Path(stored.learned_net).name != model.name:
        raise BrokenSnapshot(f"{state}: names the weights {stored.learned_net}, not {model}")
    if not model.is_file():
        raise BrokenSnapshot(f"{state}: its weights {model.name} are missing")
    if folder is not None and not (folder / stored.learned_net).is_file():
        raise BrokenSnapshot(f"{state}: names the weights {stored.learned_net}, which are missing")
    if record is not None and (damaged := _damaged(state, record)):
        raise BrokenSnapshot(f"{damaged}: is damaged, its content is not what training wrote")
    _check_weights(model, stored.history)


def _damaged(state: Path, record: RunRecord) -> Path | None:
    try:
        return record.damaged(iteration(state), state)
    except OSError as error:
        raise BrokenSnapshot(f"{error.filename}: cannot be read ({error.strerror})") from error


def _check_weights(model: Path, history: list[Shape]) -> None:
    """The weights are whole when they are the parameters that the solver's history was kept for.

    A file cut between two layers is still well-formed; only this comparison tells.
    """
    shapes = _parameters(_whole(model, read_caffemodel))
    if not any(history == shapes * kept for kept in {1, *HISTORY.values()}):
        raise BrokenSnapshot(f"{model}: is truncated, or not of the same net as its .solverstate")


def _parameters(layers: list[StoredLayer]) -> list[Shape]:
    """The shapes of a net's parameters in Caffe's order, those that layers share once."""
    parameters: dict[tuple[str, str], Shape] = {}
    for layer in layers:
        for index, blob in enumerate(layer.blobs):
            shared = layer.shared_names[index] if index < len(layer.shared_names) else ""
            key = ("", shared) if shared else (layer.name, str(index))
            parameters.setdefault(key, blob.shape)
    return list(parameters.values())


def _whole(path: Path, read: Callable[[Path], Content]) -> Content:
    try:
        return read(path)
    except InputError as error:
        raise BrokenSnapshot(f"{path}: is truncated or damaged") from error


def size(net: Any, solver: SolverParameter) -> int:
    """Bytes of one snapshot of a built pycaffe net under a SolverParameter.

    The weights of a shared parameter are written with every layer that shares it, the solver's
    history of it only once.
    """
    blobs = [blob for layer in net.layers for blob in layer.blobs]
    owned = {blob.data.ctypes.data: blob.count for blob in blobs}
    written = sum(blob.count for blob in blobs) * (2 if solver.snapshot_diff else 1)
    history = sum(owned.values()) * HISTORY.get(solver.type, 1)
    return (written + history) * BYTES_PER_NUMBER + OVERHEAD


def sync(state: Path) -> None:
    """Wait until both files of a snapshot would survive a power cut; OSError if they would not."""
    for path in (state.with_suffix(".caffemodel"), state, state.parent):
        sync_to_disk(path)


def why_unwritable(path: Path) -> str:
    """Why a file of a snapshot could not be written, which Caffe does not say.

    Found out by writing on where it ended.
    """
    free = f"{shutil.disk_usage(path.parent).free / 1e6:,.1f} MB are free there"
    before = path.stat().st_size if path.exists() else None
    try:
        with path.open("ab", buffering=0) as file:
            try:
                file.write(bytes(1 << 16))
                os.fsync(file.fileno())
            finally:
                with contextlib.suppress(OSError):
                    file.truncate(before or 0)
    except OSError as error:
        return f"{error.strerror}; {free}"
    finally:
        if before is None:
            path.unlink(missing_ok=True)
    return free


def remove_all(prefix: str | Path) -> None:
    """Delete all snapshots of a prefix, and weights whose .solverstate is gone."""
    for state in find(prefix):
        remove(state)
    for model in find_weights(prefix):
        model.unlink()


def remove(state: Path) -> None:
    """Delete both files of a snapshot; killed in between, what is left can still be found."""
    state.with_suffix(".caffemodel").unlink(missing_ok=True)
    state.unlink(missing_ok=True)
