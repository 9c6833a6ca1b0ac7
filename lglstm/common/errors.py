"""The exceptions that stand for a mistake in what the user gave us."""


class InputError(ValueError):
    """An input from outside is wrong.

    The message is one sentence that names the file or option, says what was given and what was
    expected, and what to do next. The command line prints it without a traceback and exits 1.
    """


class UsageError(InputError):
    """Options of a command are wrong in themselves, whatever the files and the machine.

    The command line prints it with the command's usage and exits 2, as for an unknown option.
    """
