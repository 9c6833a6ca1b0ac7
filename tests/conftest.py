"""What all tests share: one thread per process, and the data next to the checkout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

# Before NumPy and Caffe are loaded: tiny arrays gain nothing from threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GLOG_minloglevel", "1")  # Caffe's warnings and errors only

import pytest

# `make test &` in a script ignores Ctrl-C; programs that the tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip GPU tests politely where Caffe has no GPU to use."""
    items = [item for item in items if "gpu" in item.keywords]
    if items and not _gpu_usable():
        for item in items:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU and Caffe with CUDA"))


def _gpu_usable() -> bool:
    build = Path(sys.prefix) / "share/lg-lstm/caffe.json"
    if not build.exists() or json.loads(build.read_text())["mode"] != "CUDA":
        return False
    return subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode == 0


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real photos and weights, or a skip that says where it was looked for."""
    named = os.environ.get("LGLSTM_SHARED")
    folder = Path(named) if named else REPOSITORY.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the data in {folder / 'data'} (LGLSTM_SHARED names another folder)")
    return folder / "data"
