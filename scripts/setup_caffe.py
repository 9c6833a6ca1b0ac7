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
from caffe_build import BuildSettings, CaffeBuild
from lglstm.common.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=["install", "test", "test-all"])
    step = parser.parse_args().step
    try:
        settings = BuildSettings.here()
        build = CaffeBuild(settings, caffe_build.cache_folder())
        if step == "test":
            return build.run_tests(caffe_build.OUR_TESTS)
        if step == "test-all":
            return build.run_tests(caffe_build.ALL_TESTS)
        if caffe_build.installed_key(Path(sys.prefix)) != settings.install_key:
            caffe_build.install(build.installed(), Path(sys.prefix))
            print(f"Caffe is installed in {sys.prefix}")
        return 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}; check free space and permissions there", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; make setup continues from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
