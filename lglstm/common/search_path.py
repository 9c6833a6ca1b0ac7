"""Where Python looks for modules: in the user's folders only for what is nowhere else.

The command line imports this file first, so it needs nothing but what Python has loaded by then.
"""

import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import PathFinder


class LastFolders:
    """Finds in some folders what all other finders have not found.

    The end of `sys.path` would not do: a package there hides one of the same name without an
    `__init__.py`, such as protobuf's `google`, and one of an editable installation.
    """

    def __init__(self, folders: list[str]) -> None:
        self.folders = folders

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Answer Python's question for a top-level module; only parts of packages have a path."""
        return PathFinder.find_spec(name, self.folders) if path is None else None


def look_last_in(folders: list[str]) -> None:
    """Let this process find modules in `folders` when they are nowhere else."""
    sys.path[:] = [folder for folder in sys.path if folder not in folders]
    sys.meta_path.append(LastFolders(folders))


def put_user_folders_last() -> None:
    """Look last in the current folder and in those of PYTHONPATH, if this process does at all.

    A `numpy.py` or `json.py` there would otherwise be run in place of the real one.
    """
    named = os.environ.get("PYTHONPATH")
    users = set(map(os.path.abspath, named.split(os.pathsep) if named else ()))
    try:
        users.add(os.getcwd())
    except FileNotFoundError:  # deleted meanwhile: nothing is imported from it
        return
    look_last_in([folder for folder in sys.path if os.path.abspath(folder) in users])


def folders() -> list[str]:
    """All folders in which this process looks for modules, in their order."""
    last = [finder.folders for finder in sys.meta_path if isinstance(finder, LastFolders)]
    return [os.path.abspath(folder) for folder in sum(last, sys.path) if folder]
