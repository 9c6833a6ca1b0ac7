"""Child processes of Python that run our code, whatever lies in the user's folders.

Python looks for modules in the current folder and in those of PYTHONPATH before it looks at its own
library: a `numpy.py` or `json.py` there would be run in place of the real one. Here such folders
come last (`search_path`), so that a user's own Python layers are still found, and hide nothing.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

from lglstm.common import run_module, search_path
from lglstm.common.checkout import setup_advice
from lglstm.common.errors import InputError

PR_SET_PDEATHSIG = 1


def module_command(module: str, *arguments: str | os.PathLike[str]) -> list[str]:
    """The command line that runs a module of ours; start it with `environment()`.

    Modules that this process finds are found there, too, behind those of Python's own folders.
    """
    folders = os.pathsep.join(search_path.folders())
    pythonpath = os.environ.get("PYTHONPATH", "")
    program = [interpreter(), "-P", run_module.__file__]
    return [*program, folders, pythonpath, module, *map(str, arguments)]


def bound_command(*command: str | os.PathLike[str]) -> list[str]:
    """The command line that runs a program which ends when this process does, even by SIGKILL.

    Start it from the main thread, with `environment()`: the end of the thread counts.
    """
    return module_command("lglstm.common.bound_program", str(os.getpid()), *command)


def end_with_parent(parent: int) -> None:
    """Let the system kill this process when `parent`, the one that started it, ends.

    If that has ended before, this process has another parent by now, and ends here. Only Linux can
    be asked to kill; on other systems, a process whose parent was killed works on to its end.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def environment(**changes: str) -> dict[str, str]:
    """The environment for a child: this one's with `changes`, without the user's module folders."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return inherited | changes


def interpreter() -> str:
    """The Python program of this environment.

    Inside `caffe`, `sys.executable` may be empty or `caffe` itself; the prefix is always right.
    """
    folder = Path(sys.prefix, "bin")
    major, minor = sys.version_info[:2]
    for name in (f"python{major}.{minor}", f"python{major}", "python"):
        if os.access(folder / name, os.X_OK):
            return str(folder / name)
    if sys.executable:
        return sys.executable
    raise InputError(f"{folder}: holds no Python program, which this needs; {setup_advice()}")
