"""A named pipe where a file should be is refused at once, not waited at for ever."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lglstm.caffe_files.prototxt import read_prototxt
from lglstm.common.errors import InputError
from lglstm.common.images import read_label, read_photo
from lglstm.data_prep.matfiles import load_mat
from lglstm.data_prep.sources import read_names
from lglstm.evaluation import evaluation_json, resume
from lglstm.layers.seg_list import read_list
from lglstm.training import log, record

READERS: dict[str, Callable[[Path], object]] = {
    "photo": read_photo,
    "label map": read_label,
    "list": read_list,
    "names": lambda path: read_names(path, lambda name: True),
    "MATLAB file": load_mat,
    "prototxt": lambda path: read_prototxt(path, "TEST"),
    "evaluation": evaluation_json.read,
    "loss curve": log.read,
}


@pytest.mark.parametrize("reader", READERS)
def test_pipes_are_refused(tmp_path: Path, reader: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="pipe: "):
        READERS[reader](pipe)


def test_pipes_in_the_place_of_our_own_notes_are_passed_over(tmp_path: Path) -> None:
    pipe = tmp_path / resume.FILE
    os.mkfifo(pipe)
    assert record.read(pipe, warn=False) == record.RunRecord()
    assert not resume.is_claimed(tmp_path) and resume.photo_sha256(pipe) == ""
