"""The one exception that stands for a mistake in what the user gave us."""


class InputError(ValueError):
    """An input from outside is wrong.

    The message is one sentence that names the file or option, says what was given and what was
    expected, and what to do next. The command line prints it without a traceback and exits 1.
    """
