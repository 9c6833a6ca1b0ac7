"""The exceptions that stand for a mistake in what the user gave us."""

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


class UsageError(InputError):
    """Options of a command are wrong in themselves, whatever the files and the machine.

    The command line prints it with the command's usage and exits 2, as for an unknown option.
    """
