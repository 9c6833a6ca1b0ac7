"""Files that once ended a reader in something other than a result or one sentence."""

from __future__ import annotations

import multiprocessing as mp
import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("caffe", reason="needs Caffe: make setup")

from fuzz import CORPUS, fuzz, inputs, limit_memory, on_alarm, replayed
from fuzz_readers import Reader, make_readers

from lglstm.common.errors import InputError


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return make_readers(tmp_path_factory.mktemp("readers"))


def replay(path: Path, readers: dict[str, Reader], folder: Path, answer: Any) -> None:
    signal.signal(signal.SIGPROF, on_alarm)
    limit_memory()
    answer.send(replayed(path, readers, folder))


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.iterdir()))
def test_a_file_that_once_did_harm_does_none(name, readers, tmp_path):
    here, there = mp.Pipe(duplex=False)
    arguments = (CORPUS / name, readers, tmp_path, there)
    process = mp.get_context("fork").Process(target=replay, args=arguments)
    process.start()
    there.close()
    try:
        problem = here.recv()
    except EOFError:
        problem = "its process ended"
    process.join()
    assert problem == ""


def faulty(path: Path) -> object:
    """A reader with a fault of each kind, told by the first byte."""
    match path.read_bytes()[:1]:
        case b"t":
            raise KeyError("a")
        case b"h":
            while True:
                pass
        case b"m":
            return bytearray(2 << 30)
        case b"s":
            raise InputError("a\nb")
        case b"e":
            signal.raise_signal(signal.SIGKILL)
    return None


@pytest.mark.slow
def test_each_kind_of_fault_is_found(tmp_path, monkeypatch):
    seeds = [b"t", b"h", b"m", b"e", b"s", b"x"]
    reader = Reader("faulty", "a.bin", seeds, faulty, [lambda data, *rest: data])
    monkeypatch.setattr("fuzz.make_readers", lambda folder: {"faulty": reader})
    monkeypatch.setattr("fuzz.LONGEST", 0.2)
    monkeypatch.setattr("fuzz.CHUNK", 1)
    tally = fuzz(60, 1, tmp_path, 1)
    kinds = {key[1] for key in tally.faults}
    assert kinds == {"traceback", "hang", "memory", "crash"}
    assert tally.tried["faulty"] == 60 and 0 < tally.read["faulty"] < 60


def test_inputs_are_the_same_for_the_same_seed(readers):
    for reader in readers.values():
        first, again, other = (list(inputs(reader, seed, 20)) for seed in ("1 a", "1 a", "2 a"))
        assert first == again != other
