"""A folder to train in."""

from __future__ import annotations

import pytest

pytest.importorskip("caffe")

import h5py
import numpy as np
from training_help import FAULTY, SOLVER, write_net


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a data set, a net and a solver; the current one, as for a user."""
    (tmp_path / "faulty.py").write_text(FAULTY)
    rng = np.random.default_rng(3)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["image"] = rng.normal(size=(10, 3, 2, 5)).astype(np.float32)
        file["label"] = rng.integers(0, 3, size=(10, 1)).astype(np.float32)
    (tmp_path / "list.txt").write_text(f"{tmp_path}/data.h5\n")
    write_net(tmp_path)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path
