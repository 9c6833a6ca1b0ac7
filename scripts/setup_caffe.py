"""Install Caffe with our layers into the environment of the Python that runs this, or test it.

    .venv/bin/python scripts/setup_caffe.py install      build what is missing; copy into .venv
    .venv/bin/python scripts/setup_caffe.py test         the C++ tests of the LG-LSTM layers
    .venv/bin/python scripts/setup_caffe.py test-all     Caffe's whole test suite, ours included

CAFFE_SOURCE=<folder> builds the user's own Caffe tree, CUDA=1 CUDA_ARCH=<number> for the GPU.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import caffe_build
from caffe_build import Recipe, Workshop
from common.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=["install", "test", "test-all"])
    step = parser.parse_args().step
    try:
        workshop = Workshop(Recipe.here(), caffe_build.cache_folder())
        with workshop.locked():
            if step == "install":
                if caffe_build.install(workshop.installed(), Path(sys.prefix)):
                    print(f"Caffe is installed in {sys.prefix}")
                return 0
            program = caffe_build.OUR_TESTS if step == "test" else caffe_build.ALL_TESTS
            return workshop.run_tests(program)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
