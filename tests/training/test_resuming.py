"""`--resume` after damage, with other settings, and two runs at once."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("caffe")

from training_help import (
    PHOTO_NET,
    finish,
    make_plan,
    results,
    start,
    train,
    wait_for_rows,
    write_net,
)

from lglstm.common.errors import InputError
from lglstm.training import log, record, snapshots
from lglstm.training.plot import draw


def resumed(*settings: str):
    return make_plan(resume=True, cpu=True, settings=settings)


@pytest.fixture
def trained(folder):
    """A run of 24 iterations with snapshots at 12 and 24, and what resuming at once would give."""
    train("--set", "max_iter=24", folder=folder)
    return folder


def flipped(data: bytes, at: int, bit: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


@pytest.mark.slow
def test_one_damaged_byte_anywhere_in_a_snapshot(trained, caplog):
    """With the run's record every flipped bit is seen; without, none ends in a traceback."""
    rng = np.random.default_rng(0)
    known = record.read(Path("runs/tiny.run.json"))
    assert sorted(known.snapshots) == ["12", "24"]
    for kind in ("solverstate", "caffemodel"):
        path = trained / f"runs/tiny_iter_24.{kind}"
        whole = path.read_bytes()
        for at in rng.choice(len(whole), 200, replace=False):
            path.write_bytes(flipped(whole, at, rng.integers(8)))
            assert snapshots.newest_good("runs/tiny", known, trained).stem == "tiny_iter_12"
            assert snapshots.newest_good("runs/tiny", None, trained).stem.startswith("tiny_iter_")
        assert f"tiny_iter_24.{kind}: is damaged, its content is not what training" in caplog.text
        path.write_bytes(whole)
    assert snapshots.newest_good("runs/tiny", known, trained).stem == "tiny_iter_24"


@pytest.mark.slow
def test_the_curve_of_a_run_killed_before_its_last_picture(trained):
    curve = trained / "runs/tiny.png"
    complete = curve.read_bytes()
    draw([log.read(trained / "runs/tiny.csv")], curve)
    assert curve.read_bytes() == complete, "the same rows give the same picture"
    for before in (b"the picture of an earlier snapshot", None):
        curve.unlink()
        if before:
            curve.write_bytes(before)
            os.utime(curve, ns=(0, 0))
        train("--resume", "--set", "max_iter=24", folder=trained, status=1)
        assert curve.read_bytes() == complete
    curve.write_bytes(b"newer than the run")
    train("--resume", "--set", "max_iter=24", folder=trained, status=1)
    assert curve.read_bytes() == b"newer than the run"


@pytest.mark.slow
def test_what_a_run_lacks_that_was_killed_right_after_its_last_snapshot(folder):
    """The fingerprints of the snapshot, the test after the last iteration, and the picture."""
    train("--set", "max_iter=40", folder=folder)
    names = ("runs/tiny.run.json", "runs/tiny.png", "runs/tiny.csv")
    complete = {name: (folder / name).read_bytes() for name in names}
    known = record.read(folder / names[0])
    fingerprints = known.snapshots.pop("40")
    known.save(folder / names[0])
    *rows, last = complete["runs/tiny.csv"].splitlines(keepends=True)
    assert last.startswith(b"40,,")
    (folder / "runs/tiny.csv").write_bytes(b"".join(rows))
    (folder / "runs/tiny.png").unlink()
    out, _ = train("--resume", "--set", "max_iter=40", folder=folder)
    assert "finished at iteration 40 of 40" in out and "test_total_loss" in out
    assert {name: (folder / name).read_bytes() for name in names} == complete
    known.save(folder / names[0])
    train("--resume", "--set", "max_iter=40", folder=folder, status=1)
    assert record.read(folder / names[0]).snapshots["40"] == fingerprints


def test_what_a_kill_leaves_of_a_snapshot_that_is_deleted_can_be_found(tmp_path, monkeypatch):
    state = tmp_path / "a_iter_5.solverstate"
    for path in (state, state.with_suffix(".caffemodel")):
        path.touch()
    unlink = Path.unlink

    def killed_after_it(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", killed_after_it)
    with pytest.raises(KeyboardInterrupt):
        snapshots.remove(state)
    assert snapshots.find(tmp_path / "a") == [state]


def test_empty_files_by_which_caffe_tried_the_place(folder):
    """Left by a run that was killed while Caffe did so; anything else of such a name stays."""
    (folder / "runs").mkdir()
    lying, other = folder / "runs/tiny_iter_17.tempfile", folder / "runs/tiny_iter_18.tempfile"
    lying.touch()
    other.write_text("not Caffe's")
    (folder / "runs/other_iter_17.tempfile").touch()
    make_plan(cpu=True)
    kept = {path.name for path in (folder / "runs").iterdir()}
    assert kept == {other.name, "other_iter_17.tempfile"}


@pytest.mark.slow
def test_the_row_of_an_iteration_is_written_before_its_snapshot(folder):
    """So that a run killed in between does not lack it."""
    (folder / "runs/tiny_iter_12.caffemodel").mkdir(parents=True)
    train(folder=folder, status=1)
    assert [row["iteration"] for row in results(folder)] == [str(n) for n in range(12)]


@pytest.mark.slow
def test_a_run_with_a_damaged_newest_snapshot_and_csv_goes_on(folder):
    train("--set", "max_iter=36", folder=folder)
    expected = results(folder)
    model = folder / "runs/tiny_iter_24.caffemodel"
    train("--set", "max_iter=24", "--overwrite", folder=folder)
    whole = model.read_bytes()
    model.write_bytes(flipped(whole, len(whole) // 2))
    table = folder / "runs/tiny.csv"
    lines = table.read_bytes().split(b"\n")
    lines[6] = b"\xff" + lines[6][1:]
    table.write_bytes(b"\n".join(lines))
    _, err = train("--resume", "--set", "max_iter=36", folder=folder)
    assert "warning: " in err and "tiny_iter_24.caffemodel: is damaged" in err
    assert "resumed from" in err and "tiny_iter_12.solverstate" in err
    assert "warning: " in err and "1 of its first 12 rows are missing or damaged" in err
    assert model.read_bytes() == whole
    assert results(folder) == [row for row in expected if row["iteration"] != "5"]
    snapshots.verify(
        folder / "runs/tiny_iter_24.solverstate", record.read(Path("runs/tiny.run.json"))
    )


def test_damaged_rows_are_left_out(tmp_path):
    path, columns = tmp_path / "a.csv", ["iteration", "lr", "loss"]
    sound = ["0,1,2", "1,1,2", "3,1,nan", "4,1,", "5,1,2"]
    bad = ['2,1,"2', "2,1", "2,1,x", "٢,1,2", "-2,1,2", "9" * 5000 + ",1,2", "\0,1,2", "1,1,2", ""]
    for damage in bad:
        lines = ["iteration,lr,loss", *sound[:2], damage, *sound[2:], "6,1,"]
        path.write_text("\n".join(lines))  # the last row was cut short
        table = log.CsvLog(path, columns, start=6)
        table.close()
        assert path.read_text().split("\n") == ["iteration,lr,loss", *sound, ""]
        assert "1 of its first 6 rows are missing or damaged" in table.lost
    path.write_text("iteration,lr,lost\n0,1,2\n")
    with pytest.raises(InputError, match="a.csv: its columns do not match this net; move it away"):
        log.CsvLog(path, columns, start=6)


def test_a_damaged_record_is_left_out(tmp_path, caplog):
    path = tmp_path / "a.run.json"
    record.RunRecord({"random_seed": 1}, {"12": {"caffemodel": "ab"}}).save(path)
    whole = path.read_bytes()
    assert record.read(path).settings == {"random_seed": 1}
    for at in range(len(whole)):
        damaged = flipped(whole, at)
        path.write_bytes(damaged)
        same = damaged.split() == whole.split()  # white space
        assert record.read(path) == record.RunRecord() or same or _equal(damaged, whole)
    for text in ("", "[]", "[" * 100_000, '{"sha256": 1}'):
        path.write_text(text)
        assert record.read(path) == record.RunRecord()
    assert "judged by their form alone" in caplog.text
    path.unlink()
    caplog.clear()
    assert record.read(path) == record.RunRecord() and not caplog.text


def _equal(one: bytes, other: bytes) -> bool:
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


SEG = {
    "list": "photos.txt", "batch_size": 2, "input_size": [8, 12], "label_stride": 4,
    "num_classes": 3, "train": True, "seed": 5,
}  # fmt: skip


def snapshot_of(net: str, folder: Path) -> Path:
    """A snapshot with the layers of a net, whose blobs are empty of meaning."""
    from caffe.proto import caffe_pb2
    from google.protobuf import text_format

    message = text_format.Parse(net, caffe_pb2.NetParameter())
    message.layer[0].blobs.add(data=[3.0]).shape.dim.append(1)
    state = folder / "runs/tiny_iter_12.solverstate"
    state.parent.mkdir(exist_ok=True)
    state.with_suffix(".caffemodel").write_bytes(message.SerializeToString())
    solver = caffe_pb2.SolverState(iter=12, current_step=0)
    solver.learned_net = "runs/tiny_iter_12.caffemodel"
    solver.history.add(data=[0.0]).shape.dim.append(1)
    state.write_bytes(solver.SerializeToString())
    return state


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"workers": 0, "prefetch": 1, "mirror": True}, None),
        ({"batch_size": 3}, "layer 'train_data' of the run has batch_size 2, not 3"),
        ({"list": "other.txt"}, "layer 'train_data' of the run has list photos.txt, not other.txt"),
        ({"seed": 6}, "layer 'train_data' of the run has seed 5, not 6"),
        ({"shuffle": True}, "layer 'train_data' of the run has shuffle unset, not True"),
        ({"rank": 0, "world_size": 2}, "layer 'train_data' of the run has rank unset, not 0"),
    ],
)
def test_photos_are_not_continued_elsewhere(folder, change, said):
    snapshot_of(PHOTO_NET.replace("OPTIONS", json.dumps(SEG)), folder)
    (folder / "net.prototxt").write_text(PHOTO_NET.replace("OPTIONS", json.dumps(SEG | change)))
    if said is None:
        assert resumed().resume
        return
    with pytest.raises(InputError) as error:
        resumed()
    assert said in str(error.value)
    assert "elsewhere in its data; set it back, or start a new run from these weights" in str(
        error.value
    )


def test_a_data_layer_that_is_gone_or_of_another_type(folder):
    net = PHOTO_NET.replace("OPTIONS", json.dumps(SEG))
    snapshot_of(net, folder)
    (folder / "net.prototxt").write_text(net.replace("train_data", "renamed"))
    with pytest.raises(InputError, match="reads layer 'train_data', which the net lacks now"):
        resumed()
    (folder / "net.prototxt").write_text(net.replace("lglstm.layers.seg_data", "mine"))
    with pytest.raises(InputError, match="has module lglstm.layers.seg_data.SegData, not mine."):
        resumed()


@pytest.mark.slow
def test_other_settings_than_the_run_was_started_with(trained):
    more = "max_iter=60"
    assert resumed(more, "base_lr=1", "snapshot=7").resume
    for setting, said in {
        "random_seed=8": "the run has random_seed 7, not 8",
        "iter_size=2": "the run has iter_size 1, not 2",
    }.items():
        with pytest.raises(InputError, match=said):
            resumed(more, setting)
    net = (trained / "net.prototxt").read_text()
    (trained / "net.prototxt").write_text(net.replace("batch_size: 4", "batch_size: 6"))
    with pytest.raises(InputError, match="layer 'data' of the run has batch_size 4, not 6"):
        resumed(more)
    # The test net's data may change.
    (trained / "net.prototxt").write_text(net.replace("batch_size: 5", "batch_size: 6"))
    assert resumed(more).resume
    (trained / "list.txt").write_text(f"{trained}/data.h5\n{trained}/data.h5\n")
    with pytest.raises(InputError, match="list.txt has changed since the run began"):
        resumed(more)
    # Without the record, as after `caffe train`, only the layers can be compared.
    (trained / "runs/tiny.run.json").unlink()
    assert resumed(more, "random_seed=8").resume


@pytest.mark.slow
def test_two_trainings_on_one_prefix(folder):
    write_net(folder, sleep=1)
    first = start(folder=folder)
    wait_for_rows(folder, 1)
    for arguments in (("--overwrite",), ("--resume",)):
        _, err = train(*arguments, folder=folder, status=1)
        assert re.search(rf"runs/tiny: process {first.pid} \(.*train .*is writing there", err), err
        assert "set another place with --set snapshot_prefix=FOLDER/NAME" in err
    train("--set", "snapshot_prefix=runs/other", "--set", "max_iter=1", folder=folder)
    first.kill()
    finish(first)
    assert first.returncode == -signal.SIGKILL
    # The system has released the lock.
    train("--overwrite", "--set", "max_iter=1", folder=folder)


LOG = """
I1122 16:16:45.219836 15952 solver.cpp:347] Iteration 0, Testing net (#0)
I1122 16:16:45.219836 15952 solver.cpp:414]     Test net output #1: a = 2 (* 1 = 2 loss)
I1122 16:16:45.219836 15952 solver.cpp:239] Iteration 0 (-1e+33 iter/s, 0s/2 iters), loss = 4
I1122 16:16:45.219836 15952 solver.cpp:258]     Train net output #0: a = 3 (* 1 = 3 loss)
I1122 16:16:45.219836 15952 solver.cpp:239] Iteration 10 (2 iter/s, 5s/10 iters), loss = 2
"""
CSV = (
    "iteration,lr,total_loss,a,b,seconds,data_seconds,test_total_loss\n"
    "0,0.1,4,3,1,0.5,0.1,3.5\n1,0.1,2,1,1,0.5,0.1,\n2,,,,,,,1.5\n"
)


@pytest.mark.slow
def test_damaged_logs_are_drawn_or_refused(tmp_path):
    """Every byte replaced by others: a curve, or one sentence that names the file."""
    rng = np.random.default_rng(1)
    refused = 0
    for name, text in (("a.log", LOG), ("b.csv", CSV)):
        for at in range(len(text)):
            for byte in (*rng.integers(0, 256, 3), *b'9"\r'):
                (tmp_path / name).write_bytes(
                    text[:at].encode() + bytes([byte]) + text[at + 1 :].encode()
                )
                try:
                    run = log.read(tmp_path / name)
                    log.curve(run.losses["total_loss"])
                except InputError as error:
                    assert str(tmp_path / name) in str(error) and "\n" not in str(error)
                    refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LOG.replace("loss = 2\n", "loss = 2.x\n"), "a.log, line 6: is damaged (could not convert"),
        (LOG.replace("a = 2 ", "a = 2e "), "a.log, line 3: is damaged"),
        (LOG.replace("Iteration 10", "Iteration " + "9" * 5000), "a.log, line 6: is damaged"),
        (LOG.replace("Iteration 10", "Iteration " + "9" * 30), "a.log, line 6: is damaged"),
        (CSV.replace("1,0.1", "9" * 30 + ",0.1"), "is not a CSV of lglstm train (iteration 1e+30)"),
        (CSV.replace("1,0.1", "-1,0.1"), "is not a CSV of lglstm train (iteration -1)"),
        (CSV + "3," + "1" * 200_000 + "\n", "is not a CSV of lglstm train"),
    ],
)
def test_what_a_damaged_log_is_refused_for(tmp_path, text, said):
    (tmp_path / "a.log").write_text(text)
    with pytest.raises(InputError) as error:
        log.read(tmp_path / "a.log")
    assert said in str(error.value) and len(str(error.value)) < 400


@pytest.mark.slow
def test_losses_of_any_size_are_drawn(tmp_path):
    for values in ([1e308, 1e-308], [np.nan, np.nan], [np.inf, 1], [-1e308, 1e308], [0, 5e-324]):
        run = log.Run("x")
        run.losses["total_loss"] = dict(enumerate(values))
        run.tests["total_loss"] = dict(enumerate(values))
        draw([run], tmp_path / "x.png")
        assert (tmp_path / "x.png").stat().st_size > 1000
    shutil.rmtree(tmp_path)
