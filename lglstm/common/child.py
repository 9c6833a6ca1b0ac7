"""Child processes of Python that run our code, whatever lies in the user's folders.

Python looks for modules in the current folder and in those of PYTHONPATH before it looks at its own
library: a `numpy.py` or `json.py` there would be run in place of the real one. Here such folders
come last, so that a user's own Python layers are still found, and hide nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lglstm.common.errors import InputError

_RUN_MODULE = f"""\
import sys
folders, module = sys.argv[1:3]
sys.path += [folder for folder in folders.split({os.pathsep!r}) if folder not in sys.path]
sys.argv[:3] = [module]
import runpy
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def user_folders_last() -> None:
    """Move the current folder and those of PYTHONPATH to the end of this process's `sys.path`."""
    named = os.environ.get("PYTHONPATH")
    users = {os.getcwd(), *map(os.path.abspath, named.split(os.pathsep) if named else ())}
    sys.path.sort(key=lambda folder: os.path.abspath(folder) in users)


def module_command(module: str, *arguments: str | os.PathLike[str]) -> list[str]:
    """The command line that runs a module of ours; start it with `environment()`.

    Modules that this process finds are found there, too, behind those of Python's own folders.
    """
    folders = os.pathsep.join(os.path.abspath(folder) for folder in sys.path if folder)
    return [interpreter(), "-P", "-c", _RUN_MODULE, folders, module, *map(str, arguments)]


def environment(**changes: str) -> dict[str, str]:
    """The environment for a child: this one's with `changes`, without the user's module folders."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return inherited | {"PYTHONSAFEPATH": "1"} | changes


@contextmanager
def as_environment() -> Iterator[None]:
    """Give a library that starts children by itself `environment()` while the block runs."""
    before = dict(os.environ)
    os.environ.pop("PYTHONPATH", None)
    os.environ.update(environment())
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


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
    raise InputError(f"no Python program in {folder}; set workers: 0 in the data layer")
