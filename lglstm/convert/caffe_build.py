"""Builds the net on its standard input, to see whether Caffe can, which ends the process if not.

python -m lglstm.convert.caffe_build PARENT < NET
"""

from __future__ import annotations

import sys

from lglstm.common import child


def _main(parent: str) -> None:
    child.end_with_parent(int(parent))
    import caffe

    caffe.Net("/proc/self/fd/0", caffe.TEST)


if __name__ == "__main__":
    _main(*sys.argv[1:])
