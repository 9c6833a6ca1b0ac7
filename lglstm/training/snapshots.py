"""Caffe's snapshots: finding them, telling whole ones from broken ones, and their size.

A snapshot is a pair of files, `<prefix>_iter_<k>.caffemodel` (the weights) and `.solverstate` (the
iteration, the solver's momentum and the name of the weights). Caffe writes them in this order
and in place, so that a process killed while writing leaves a truncated file.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from caffe.proto import caffe_pb2
from google.protobuf.message import DecodeError

from lglstm.common.errors import InputError

# Blobs that each type of solver keeps per learnable parameter.
HISTORY = {"Adam": 2, "AdaDelta": 2}
BYTES_PER_NUMBER = 4
# Names, shapes and layer parameters around the numbers.
OVERHEAD = 1 << 16

logger = logging.getLogger(__name__)


class BrokenSnapshot(Exception):
    """Why a snapshot cannot be resumed from."""


def iteration(state: Path) -> int:
    return int(re.search(r"_iter_(\d+)\.\w+$", state.name)[1])


def path_at(prefix: str | Path, number: int) -> Path:
    return Path(f"{prefix}_iter_{number}.solverstate")


def find(prefix: str | Path) -> list[Path]:
    """The .solverstate files of a prefix, newest (highest iteration) first; whole or not."""
    prefix = Path(prefix)
    pattern = re.compile(re.escape(prefix.name) + r"_iter_\d+\.solverstate")
    found = (path for path in prefix.parent.glob("*.solverstate") if pattern.fullmatch(path.name))
    return sorted(found, key=iteration, reverse=True)


def newest_good(prefix: str | Path) -> Path:
    """The newest snapshot that is whole; a broken one is skipped with a warning."""
    for state in find(prefix):
        try:
            verify(state)
        except BrokenSnapshot as error:
            logger.warning("%s; trying the one before", error)
        else:
            return state
    raise InputError(
        f"{prefix}_iter_*.solverstate: none of these snapshots is whole; start again with "
        "--overwrite, or with --weights from a .caffemodel that is"
    )


def verify(state: Path) -> None:
    """Raise BrokenSnapshot unless both files of the pair are whole and belong to each other."""
    model = state.with_suffix(".caffemodel")
    solver_state = _parse(state, caffe_pb2.SolverState())
    # Caffe writes this field last, so a file cut between two fields lacks it.
    if not solver_state.HasField("current_step"):
        raise BrokenSnapshot(f"{state}: is truncated")
    if solver_state.iter != iteration(state):
        raise BrokenSnapshot(f"{state}: holds iteration {solver_state.iter}, not that of its name")
    if Path(solver_state.learned_net).name != model.name:
        raise BrokenSnapshot(f"{state}: names the weights {solver_state.learned_net}, not {model}")
    if not model.is_file():
        raise BrokenSnapshot(f"{state}: its weights {model.name} are missing")
    _check_weights(model, [_shape(blob) for blob in solver_state.history])


def _check_weights(model: Path, history: list[tuple[int, ...]]) -> None:
    """The weights are whole when they are the parameters that the solver's history was kept for.

    A file cut between two layers is still well-formed; only this comparison tells.
    """
    shapes = list(_parameters(_parse(model, caffe_pb2.NetParameter())).values())
    if not any(history == shapes * kept for kept in {1, *HISTORY.values()}):
        raise BrokenSnapshot(f"{model}: is truncated, or not of the same net as its .solverstate")


def _parameters(net) -> dict[tuple, tuple[int, ...]]:
    """The shapes of a net's parameters in Caffe's order, those that layers share once."""
    parameters: dict[tuple, tuple[int, ...]] = {}
    for layer in net.layer:
        for index, blob in enumerate(layer.blobs):
            shared = layer.param[index].name if index < len(layer.param) else ""
            key = ("shared", shared) if shared else (layer.name, index)
            parameters.setdefault(key, _shape(blob))
    return parameters


def _shape(blob) -> tuple[int, ...]:
    return tuple(blob.shape.dim)


def _parse(path: Path, message):
    try:
        message.ParseFromString(path.read_bytes())
    except OSError as error:
        raise BrokenSnapshot(f"{path}: cannot be read ({error.strerror})") from error
    except DecodeError as error:
        raise BrokenSnapshot(f"{path}: is truncated or damaged") from error
    return message


def layer_names(weights: Path) -> set[str]:
    """The layers with parameters in a .caffemodel; InputError when it is not one."""
    try:
        net = _parse(weights, caffe_pb2.NetParameter())
    except BrokenSnapshot as error:
        raise InputError(f"{error}; get a whole .caffemodel") from error
    return {layer.name for layer in [*net.layer, *net.layers] if layer.blobs}


def size(net, solver) -> int:
    """Bytes of one snapshot of a built pycaffe net under a SolverParameter.

    The weights of a shared parameter are written with every layer that shares it, the solver's
    history of it only once.
    """
    blobs = [blob for layer in net.layers for blob in layer.blobs]
    owned = {blob.data.ctypes.data: blob.count for blob in blobs}
    written = sum(blob.count for blob in blobs) * (2 if solver.snapshot_diff else 1)
    history = sum(owned.values()) * HISTORY.get(solver.type, 1)
    return (written + history) * BYTES_PER_NUMBER + OVERHEAD


def remove(state: Path) -> None:
    """Delete both files of a snapshot."""
    state.unlink(missing_ok=True)
    state.with_suffix(".caffemodel").unlink(missing_ok=True)
