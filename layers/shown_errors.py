"""Errors of Python layers inside the `caffe` program, which would not show them by itself."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable

from lglstm.common.errors import InputError

EMBEDDED = not sys.orig_argv
"""Whether Python runs inside another program: then it has no command line of its own."""


def shown_errors(layer: type) -> type:
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


def _ending(method: Callable) -> Callable:
    @functools.wraps(method)
    def guarded(*arguments):
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
