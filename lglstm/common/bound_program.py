"""Becomes another program that ends with the process that started it (`child.bound_command`).

python -m lglstm.common.bound_program PARENT PROGRAM [ARGUMENT...]
"""

import os
import sys

from lglstm.common.child import end_with_parent


def main(parent: str, *command: str) -> None:
    """Run `command`, whose program is a path, in place of this process."""
    end_with_parent(int(parent))
    # Given back to this process for modules of its own; the program starts as `environment()` says.
    os.environ.pop("PYTHONPATH", None)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
