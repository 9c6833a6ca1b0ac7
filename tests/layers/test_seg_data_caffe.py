"""SegData inside Caffe: pycaffe nets and solvers, and the `caffe` program."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from seg_help import AUGMENTATION, digest, make_set, settings

from lglstm.common.errors import InputError
from lglstm.layers import seg_options
from lglstm.layers.seg_list import read_list
from lglstm.layers.seg_prefetch import Inline

caffe = pytest.importorskip("caffe", reason="needs Caffe: make setup")

TESTS = Path(__file__).resolve().parents[1]
PROGRAM = shutil.which("caffe") or str(Path(sys.executable).with_name("caffe"))

POSITION = "param { lr_mult: 0 decay_mult: 0 }"


class PollFd(ctypes.Structure):
    """`struct pollfd` of poll(2)."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


@pytest.fixture
def list_file(tmp_path) -> Path:
    return make_set(tmp_path / "data")


def net_text(param_str: str, position: str = POSITION, notes: Path | None = None) -> str:
    """A net of the data layer, one convolution with its loss and, with `notes`, a Recorder."""
    recorder = f"""
      layer {{ name: "recorder" type: "Python" bottom: "data" bottom: "label"
        python_param {{ module: "seg_recorder" layer: "Recorder" param_str: "{notes}" }} }}"""
    return f"""
      layer {{ name: "train_data" type: "Python" top: "data" top: "label" {position}
        python_param {{ module: "lglstm.layers.seg_data" layer: "SegData"
                        param_str: '{param_str}' }} }}
      {recorder if notes else ""}
      layer {{ name: "score" type: "Convolution" bottom: "data" top: "score"
        convolution_param {{ num_output: 5 kernel_size: 9 stride: 8 pad: 4
                             weight_filler {{ type: "gaussian" std: 0.001 }} }} }}
      layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss"
        loss_param {{ ignore_label: 255 }} }}"""


def write_solver(folder: Path, net: str, iterations: int = 12) -> Path:
    (folder / "net.prototxt").write_text(net)
    solver = folder / "solver.prototxt"
    solver.write_text(f"""
      net: "{folder / "net.prototxt"}" base_lr: 0.001 momentum: 0.9 weight_decay: 0.01
      lr_policy: "fixed" max_iter: {iterations} snapshot: 5 snapshot_prefix: "{folder / "run"}"
      random_seed: 1 iter_size: 2 solver_mode: CPU""")
    return solver


def run_caffe(*arguments: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [PROGRAM, *arguments],
        env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def expected(list_file: Path, count: int, **more) -> list[str]:
    """The digests of the first batches, made without Caffe and without workers."""
    source = Inline(seg_options.parse(settings(list_file, **more)), read_list(list_file))
    return [digest(*source.batch(number)) for number in range(count)]


def load_net(folder: Path, text: str, phase: int = caffe.TRAIN) -> caffe.Net:
    file = folder / "one.prototxt"
    file.write_text(text)
    return caffe.Net(str(file), phase)


def served(net: caffe.Net) -> str:
    net.forward(end="train_data")
    return digest(net.blobs["data"].data, net.blobs["label"].data)


@pytest.mark.slow
def test_pycaffe_serves_the_batches_and_counts_them(tmp_path, list_file):
    net = load_net(tmp_path, net_text(settings(list_file, **AUGMENTATION)))
    assert net.blobs["data"].data.shape == (2, 3, 17, 25)
    assert net.blobs["label"].data.shape == (2, 1, 3, 4)
    assert [served(net) for _ in range(5)] == expected(list_file, 5, **AUGMENTATION)
    layer = net.layers[0]
    assert net.params["train_data"][0].data.tolist() == [5]
    assert layer.batches == 5 and 0 <= layer.waited_s < 60
    processes = [worker._process for worker in layer._source._workers]
    layer.close()
    assert len(processes) == 2 and all(process.poll() is not None for process in processes)
    assert served(net) == expected(list_file, 6, **AUGMENTATION)[5]
    layer.close()


def test_a_test_layer_reads_in_order_and_owns_nothing(tmp_path, list_file):
    param_str = settings(list_file, train=False, workers=0)
    net = load_net(tmp_path, net_text(param_str, position=""), caffe.TEST)
    assert "train_data" not in net.params
    assert [served(net) for _ in range(8)] == expected(list_file, 8, train=False)


@pytest.mark.slow
def test_a_restored_solver_goes_on_with_the_next_batch(tmp_path, list_file):
    """Two batches in an iteration, several epochs; momentum and decay leave the count alone."""
    solver_file = write_solver(tmp_path, net_text(settings(list_file, **AUGMENTATION)))
    wanted = expected(list_file, 25, **AUGMENTATION)
    first = caffe.SGDSolver(str(solver_file))
    first.step(12)
    assert served(first.net) == wanted[24]
    second = caffe.SGDSolver(str(solver_file))
    second.step(1)  # it has read ahead, and must forget that
    second.restore(str(tmp_path / "run_iter_5.solverstate"))
    assert [served(second.net) for _ in range(15)] == wanted[10:]
    for solver in (first, second):
        solver.net.layers[0].close()


@pytest.mark.slow
def test_caffe_train_goes_on_with_the_next_batch(tmp_path, list_file):
    notes = tmp_path / "notes.txt"
    solver = write_solver(tmp_path, net_text(settings(list_file, **AUGMENTATION), notes=notes))
    assert run_caffe("train", f"-solver={solver}").returncode == 0
    whole = notes.read_text().split()
    assert whole == expected(list_file, 24, **AUGMENTATION)
    notes.unlink()
    state = tmp_path / "run_iter_5.solverstate"
    assert run_caffe("train", f"-solver={solver}", f"-snapshot={state}").returncode == 0
    assert notes.read_text().split() == whole[10:]


@pytest.mark.slow
def test_caffe_train_shows_only_the_sentence(tmp_path, list_file):
    solver = write_solver(tmp_path, net_text(settings(list_file, batch_size=0)))
    result = run_caffe("train", f"-solver={solver}")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last == (
        f"error: SegData layer of {list_file}: batch_size is 0; it must be a whole number from 1 "
        "to 65,536"
    )


@pytest.mark.slow
def test_caffe_train_names_the_line_of_a_bad_photo(tmp_path, list_file):
    (list_file.parent / "images" / "4.png").write_bytes(b"no picture")
    solver = write_solver(tmp_path, net_text(settings(list_file)))
    result = run_caffe("train", f"-solver={solver}")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert f"error: {list_file}, line 5: {list_file.parent}/images/4.png" in result.stderr


@pytest.mark.parametrize("count", [2.5, -1, 2.0**24, np.nan])
def test_a_count_that_is_none_is_refused(tmp_path, list_file, count):
    net = load_net(tmp_path, net_text(settings(list_file, workers=0)))
    net.params["train_data"][0].data[...] = count
    with pytest.raises(InputError, match="not a whole number .* lr_mult: 0 decay_mult: 0"):
        net.forward()


def test_tops_are_checked(tmp_path, list_file):
    text = net_text(settings(list_file)).split("layer {")[1].replace('top: "label"', "")
    with pytest.raises(InputError, match="has 0 bottoms and 1 tops; it must have"):
        load_net(tmp_path, "layer {" + text)


@pytest.mark.slow
def test_processes_that_train_together_share_the_list(tmp_path, list_file):
    """Each takes its share by the rank that Caffe knows; a test list is never divided."""
    (tmp_path / "train.prototxt").write_text(net_text(settings(list_file)))
    (tmp_path / "test.prototxt").write_text(net_text(settings(list_file, train=False), ""))
    program = """
import sys, caffe
caffe.set_solver_count(3); caffe.set_solver_rank(1); caffe.set_multiprocess(True)
train, test = (caffe.Net(name, phase).layers[0].options for name, phase in
               zip(sys.argv[1:], (caffe.TRAIN, caffe.TEST)))
print(train.rank, train.world_size, test.rank, test.world_size)
"""
    result = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "train.prototxt", tmp_path / "test.prototxt"],
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["1", "3", "None", "None"]


def test_long_waiting_is_reported(capsys):
    from lglstm.layers import seg_data

    waiting = seg_data.Waiting("a list")
    for _ in range(seg_data.REPORT_EVERY):
        waiting.add(0.0)
    assert capsys.readouterr().err == ""
    for _ in range(seg_data.REPORT_EVERY):
        waiting.add(1.0)
    assert "SegData layer of a list: the net waited 100.0 s" in capsys.readouterr().err


@pytest.mark.slow
def test_the_next_batch_gets_ready_while_python_is_locked(tmp_path, list_file):
    """Caffe computes with the interpreter's lock held, as this call of `poll` waits with it."""
    net = load_net(tmp_path, net_text(settings(list_file, workers=2, prefetch=2)))
    net.forward(end="train_data")
    unread = net.layers[0]._source._workers[1]._answers.fileno()  # batch 1 is the second worker's
    poll = ctypes.PyDLL(None).poll
    asked = PollFd(unread, select.POLLIN)
    assert poll(ctypes.byref(asked), 1, 60_000) == 1
    net.layers[0].close()
