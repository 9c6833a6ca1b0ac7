"""The weights that a run starts from, in any format that `lglstm convert` reads.

Caffe reads caffemodels with plain numbers and HDF5. The layers of other files are given to it as a
caffemodel in memory, which a full disk does not hinder and no killed process leaves behind.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lglstm.caffe_files import Net, read_net
from lglstm.caffe_files.caffemodel import StoredLayer, blobs_by_layer, has_raw_data, write_layers
from lglstm.caffe_files.schema import LayerParameter
from lglstm.common.errors import InputError
from lglstm.common.pycaffe import Message
from lglstm.convert.read import format_of, read_weights


@dataclass(frozen=True)
class InitialWeights:
    """One file of weights.

    path: as it was named. layers: those of which it holds blobs. stored: what Caffe has to be
    given in its place; None if Caffe reads the file itself.
    """

    path: str
    layers: frozenset[str]
    stored: list[StoredLayer] | None


def read(solver: Message) -> list[InitialWeights]:
    """Read the files that a SolverParameter starts from; InputError for a damaged one."""
    return [_read(name, solver) for name in weight_files(solver)]


def weight_files(solver: Message) -> list[str]:
    """The files in `weights`, where one entry may hold several with commas between."""
    return [name.strip() for entry in solver.weights for name in entry.split(",")]


@contextmanager
def readable_by_caffe(weights: Sequence[InitialWeights]) -> Iterator[list[str]]:
    """Yield a path for each file, from which Caffe can read its layers while the block runs."""
    with ExitStack() as files:
        yield [files.enter_context(_in_memory(x.stored)) if x.stored else x.path for x in weights]


@contextmanager
def _in_memory(layers: list[StoredLayer]) -> Iterator[str]:
    handle = os.memfd_create("initial.caffemodel")
    try:
        path = f"/proc/self/fd/{handle}"
        messages = [LayerParameter(name=layer.name, type=layer.type) for layer in layers]
        write_layers(path, "initial", [(m, x.blobs) for m, x in zip(messages, layers, strict=True)])
        yield path
    finally:
        os.close(handle)


def _read(name: str, solver: Message) -> InitialWeights:
    format_ = format_of(name)
    nets = _train_nets(solver) if format_ in ("safetensors", "pth") else ()
    stored = read_weights(name, nets).stored
    layers = frozenset(blobs_by_layer(stored, name))
    by_caffe = format_ == "hdf5" or (format_ == "caffemodel" and not has_raw_data(name))
    return InitialWeights(name, layers, None if by_caffe else stored)


def _train_nets(solver: Message) -> tuple[Net, ...]:
    """The net that is trained, whose layers PyTorch's names belong to, if it is a file."""
    path = solver.train_net or solver.net
    try:
        return (read_net(Path(path), "TRAIN"),) if path else ()
    except InputError:  # layers that cannot be converted; Caffe's own formats don't need it
        return ()
