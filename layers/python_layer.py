"""What our Python layers for Caffe share: the types of what pycaffe gives, and their errors."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lglstm.common.errors import InputError
from lglstm.common.pycaffe import Blob


class Blobs(Protocol):
    """The bottoms or the tops of a layer; they can be indexed but not iterated over."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Blob: ...


class LayerBlobs(Blobs, Protocol):
    """A layer's own blobs, its weights."""

    def add_blob(self, *shape: int) -> None: ...


if TYPE_CHECKING:

    class PythonLayer:
        """Base class of a Python layer: `caffe.Layer`."""

        param_str: str
        blobs: LayerBlobs

else:
    try:
        from caffe import Layer as PythonLayer
    except ImportError:  # a module's functions serve without Caffe

        class PythonLayer:
            """Stands in for `caffe.Layer` where there is no Caffe."""


EMBEDDED = not sys.orig_argv
"""Whether Python runs inside another program: then it has no command line of its own."""

AnyLayer = TypeVar("AnyLayer", bound=type)


def reports_errors(layer: AnyLayer) -> AnyLayer:
    """Class decorator: inside `caffe`, an error in a layer's method ends the program legibly.

    Caffe's build leaves out the handler that its main program has for Python errors; without it
    the program aborts, with a C++ stack trace and not a word of the error. An InputError is shown
    as its sentence, anything else with its traceback; the exit status is 1. Elsewhere, as in
    pycaffe, errors are raised as usual.
    """
    if EMBEDDED:
        for name in ("setup", "reshape", "forward", "backward"):
            setattr(layer, name, _ending(getattr(layer, name)))
    return layer


def _ending(method: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(method)
    def guarded(*arguments: Any) -> None:
        try:
            return method(*arguments)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        # Not sys.exit: nothing above us in C++ would handle it.
        os._exit(1)

    return guarded


def listed(blobs: Blobs) -> list[Blob]:
    """Bottoms or tops as a list."""
    return [blobs[i] for i in range(len(blobs))]
