"""The exceptions that stand for a mistake in what the user gave us."""

import os
import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class InputError(ValueError):
    """An input from outside is wrong.

    The message is one sentence that names the file or option, says what was given and what was
    expected, and what to do next. The command line prints it without a traceback and exits 1.
    Names that a file brings may hold anything; line breaks and other control characters in them
    are shown as escapes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_CONTROL.sub(lambda c: c[0].encode("unicode_escape").decode(), message))


def reason_of(error: Exception) -> str:
    """What a library says of a file, in one short line; libraries raise whatever they like."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def package_missing(path: str | os.PathLike[str], error: ImportError) -> InputError:
    """The error of a file that only a package can read which is not installed."""
    return InputError(
        f"{path}: cannot be read without the Python package {error.name}; install it, for "
        f"example with pip install {error.name}"
    )


class UsageError(InputError):
    """Options of a command are wrong in themselves, whatever the files and the machine.

    The command line prints it with the command's usage and exits 2, as for an unknown option.
    """
