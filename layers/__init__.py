"""Python layers for Caffe: the LG-LSTM layers to read, the data layer and the image-label target.

`caffe/` is what is added to Caffe's own source.
"""

from __future__ import annotations

import sys

from common.errors import InputError


def _print_sentence(kind, error, traceback) -> None:
    """Print an InputError as its sentence, anything else as Python does."""
    if isinstance(error, InputError):
        print(f"error: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


# The `caffe` program prints what a Python layer raises through this hook and ends with status 1.
# Only there, with no command line of Python's own, is the hook ours to set.
if not sys.orig_argv:
    sys.excepthook = _print_sentence
