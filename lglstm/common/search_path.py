"""Where Python looks for modules: last in the user's folders.

The command line imports this file first, so it needs nothing but what Python has loaded by then.
"""

import os
import sys


def put_user_folders_last() -> None:
    """Move the current folder and those of PYTHONPATH to the end of this process's `sys.path`.

    A `numpy.py` or `json.py` there would otherwise be run in place of the real one.
    """
    named = os.environ.get("PYTHONPATH")
    users = set(map(os.path.abspath, named.split(os.pathsep) if named else ()))
    try:
        users.add(os.getcwd())
    except FileNotFoundError:  # deleted meanwhile: nothing is imported from it
        return
    sys.path.sort(key=lambda folder: os.path.abspath(folder) in users)
