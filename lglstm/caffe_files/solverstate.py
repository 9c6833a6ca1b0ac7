"""Reads `.solverstate` files without Caffe: what a snapshot says about itself."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from lglstm.caffe_files import wire
from lglstm.caffe_files.caffemodel import parse_blob
from lglstm.caffe_files.layer_types import Shape
from lglstm.caffe_files.schema import field_numbers
from lglstm.common.errors import InputError

_FIELDS = field_numbers("SolverState")


@dataclass
class StoredSolverState:
    """A solver's state.

    iteration: how many were done. learned_net: the file of the weights that belong to it. history:
    the shapes of its momentum blobs. is_complete: whether it has the field that Caffe writes last;
    a file that was cut between two fields lacks it.
    """

    iteration: int = 0
    learned_net: str = ""
    history: list[Shape] = field(default_factory=list)
    is_complete: bool = False


def read_solverstate(path: str | os.PathLike[str]) -> StoredSolverState:
    """Read a solver's state. Raises InputError for a file that is not one, or is truncated."""
    state = StoredSolverState()
    try:
        with wire.mapped(path) as view:
            for number, value in wire.records(view):
                if number == _FIELDS["iter"]:
                    state.iteration = wire.integer(value)
                elif number == _FIELDS["learned_net"]:
                    state.learned_net = wire.text(value)
                elif number == _FIELDS["history"]:
                    state.history.append(parse_blob(wire.content(value)).shape)
                elif number == _FIELDS["current_step"]:
                    state.is_complete = True
    except wire.Damaged as error:
        raise InputError(
            f"{path}: not a whole solverstate ({error}); give another snapshot"
        ) from None
    return state
