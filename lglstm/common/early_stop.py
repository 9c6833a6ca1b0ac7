"""Ctrl-C while Python still imports what a command needs: an end without a traceback.

Nothing that takes long to import may be imported here.
"""

import signal


def let_ctrl_c_end_the_process() -> bool:
    """Until `let_ctrl_c_raise`; Python would raise KeyboardInterrupt, which nobody catches yet.

    False, and nothing is changed, if Ctrl-C is ignored or handled already, or not in the main
    thread.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ValueError:
        return False
    return True


def let_ctrl_c_raise() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, as Python does by itself."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
