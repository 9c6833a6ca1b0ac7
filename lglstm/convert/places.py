"""Where a result may be written: not over what it is made from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from lglstm.common.errors import InputError


def check_output(output: Path, inputs: Iterable[Path]) -> None:
    """Raise InputError if `output` is one of the files that are read, by whatever name.

    Also for a name that leads nowhere, such as a link to itself.
    """
    try:
        there = os.stat(output)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise InputError(
            f"{output}: cannot be written ({error.strerror}); choose another --output"
        ) from None
    for path in inputs:
        with contextlib.suppress(OSError):  # what is wrong with an input, its reader says
            if os.path.samestat(there, os.stat(path)):
                raise InputError(
                    f"{output}: is the source itself, which would be lost; give another --output"
                )
