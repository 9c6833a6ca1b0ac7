"""The program of every child process: runs a module of ours (`child.module_command` starts it).

    python -P run_module.py FOLDERS PYTHONPATH MODULE [ARGUMENT...]

FOLDERS, those in which the parent looks for modules, come behind all of Python itself. PYTHONPATH
is the parent's: this process must start without it, what a user's own layer starts must not.
`lglstm` is always the package that this file is part of, wherever another may be installed.
"""

import importlib.util
import os
import runpy
import sys


def main(folders: str, pythonpath: str, module: str, *arguments: str) -> None:
    """Run `module` as `python -m` would."""
    _load_our_package()
    from lglstm.common.search_path import look_last_in

    look_last_in([folder for folder in folders.split(os.pathsep) if folder not in sys.path])
    if pythonpath:
        os.environ["PYTHONPATH"] = pythonpath
    sys.argv[:] = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _load_our_package() -> None:
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    spec = importlib.util.spec_from_file_location("lglstm", os.path.join(package, "__init__.py"))
    assert spec is not None
    assert spec.loader is not None
    sys.modules["lglstm"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["lglstm"])


if __name__ == "__main__":
    main(*sys.argv[1:])
