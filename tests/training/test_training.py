"""Training for real: tiny nets through the `lglstm train` command, killed, stopped and resumed."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

caffe = pytest.importorskip("caffe")

from caffe.proto import caffe_pb2  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from google.protobuf import text_format  # noqa: E402
from PIL import Image  # noqa: E402
from training_help import (  # noqa: E402
    PHOTO_NET,
    environment,
    finish,
    make_plan,
    results,
    rows,
    same_weights,
    start,
    train,
    wait_for_rows,
    write_net,
)

from lglstm.cli.main import main  # noqa: E402
from lglstm.common.errors import InputError  # noqa: E402
from lglstm.common.plotting import Figure  # noqa: E402
from lglstm.training import events, health, log, plot, record, snapshots  # noqa: E402
from lglstm.training.loop import Training  # noqa: E402
from lglstm.training.plot import draw, smooth  # noqa: E402
from lglstm.training.stop import StopRequest  # noqa: E402


@pytest.mark.slow
def test_killed_and_stopped_runs_end_as_one_that_ran_through(folder):
    """Kill -9, then Ctrl-C, then to the end: the same bits, each iteration once in the CSV.

    With iter_size 2, dropout and shuffled data, of which Caffe's snapshots know nothing.
    """
    write_net(folder, sleep=0.01)
    iter_size = ("--set", "iter_size=2")
    train(*iter_size, folder=folder)
    expected = results(folder)
    shutil.copytree(folder / "runs", folder / "through")
    shutil.rmtree(folder / "runs")

    killed = start(*iter_size, folder=folder)
    wait_for_rows(folder, 17)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    stopped_at = wait_until_quiet(folder)
    assert stopped_at < 60

    interrupted = start("--resume", *iter_size, folder=folder)
    wait_for_rows(folder, stopped_at + 5)
    interrupted.send_signal(signal.SIGINT)
    out, err = finish(interrupted)
    assert interrupted.returncode == 130, err
    last = int(rows(folder)[-1]["iteration"])
    assert f"interrupted at iteration {last + 1} of 60" in out
    assert snapshots.newest_good("runs/tiny").name == f"tiny_iter_{last + 1}.solverstate"

    train("--resume", *iter_size, folder=folder)
    assert results(folder) == expected
    assert [row["iteration"] for row in expected] == [str(k) for k in range(61)]
    for iteration in (48, 60):
        name = f"tiny_iter_{iteration}.caffemodel"
        assert same_weights(folder / "runs" / name, folder / "through" / name)
    assert not same_weights(folder / "runs/tiny_iter_48.caffemodel", folder / "runs" / name)


@pytest.fixture
def photos(folder):
    """A folder whose net reads photos, mirrored and shuffled, by a SegData layer."""
    rng = np.random.default_rng(0)
    lines = []
    for k in range(5):
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).save(f"{k}.png")
        Image.fromarray(rng.integers(0, 3, (12, 16), np.uint8)).save(f"{k}_label.png")
        lines.append(f"{k}.png {k}_label.png")
    (folder / "list.txt").write_text("\n".join(lines))
    options = {
        "list": "list.txt", "batch_size": 2, "input_size": [8, 12], "label_stride": 4,
        "num_classes": 3, "train": True, "mirror": True, "shuffle": True, "seed": 5, "workers": 1,
    }  # fmt: skip
    solver = (folder / "solver.prototxt").read_text().replace("test_iter: 2 test_interval: 20", "")
    (folder / "solver.prototxt").write_text(solver)
    text = PHOTO_NET.replace("OPTIONS", json.dumps(options))
    (folder / "net.prototxt").write_text(text)
    return folder


@pytest.mark.slow
def test_photos_go_on_at_the_same_place(photos):
    """The SegData layer keeps its position in a blob; there is dropout, too."""
    train("--iterations", "9", folder=photos)
    expected = results(photos)
    shutil.copytree(photos / "runs", photos / "through")
    train("--overwrite", "--iterations", "4", folder=photos)
    train("--resume", "--iterations", "9", folder=photos)
    assert results(photos) == expected and len(expected) == 9
    name = "tiny_iter_9.caffemodel"
    assert same_weights(photos / "runs" / name, photos / "through" / name)


@pytest.mark.slow
def test_masks_that_teach_nothing_are_named_before_the_first_iteration(folder):
    pixels = np.zeros((12, 16, 3), np.uint8)
    Image.fromarray(pixels).save("photo.png")
    Image.fromarray(np.where(np.eye(12, 16), 255, 0).astype(np.uint8)).save("mask.png")
    (folder / "list.txt").write_text("photo.png mask.png")
    options = {
        "list": "list.txt", "batch_size": 2, "input_size": [8, 12], "label_stride": 4,
        "num_classes": 3, "train": True, "workers": 0,
    }  # fmt: skip
    solver = (folder / "solver.prototxt").read_text().replace("test_iter: 2 test_interval: 20", "")
    (folder / "solver.prototxt").write_text(solver)
    text = PHOTO_NET.replace("OPTIONS", json.dumps(options))
    text = text.replace('top: "loss" }', 'top: "loss" loss_param { ignore_label: 255 } }')
    (folder / "net.prototxt").write_text(text)
    _, err = train("--iterations", "1", folder=folder)
    assert err.startswith("warning: list.txt: its label maps have only 0 and 255")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("label", "ignored", "refused"), [(255, None, True), (3, 255, True), (255, 255, False)]
)
def test_labels_without_a_score_are_refused(folder, label, ignored, refused):
    net = (folder / "net.prototxt").read_text()
    source = net[net.index("layer {") : net.index('layer { name: "slow"')]
    data = f"""layer {{ name: "data" type: "DummyData" top: "image" top: "label"
      dummy_data_param {{ shape {{ dim: 4 dim: 3 dim: 2 dim: 5 }} shape {{ dim: 4 dim: 1 }}
        data_filler {{ value: 1 }} data_filler {{ value: {label} }} }} }}"""
    net = net.replace(source, data)
    if ignored:
        loss = 'type: "SoftmaxWithLoss"'
        net = net.replace(loss, f"{loss} loss_param {{ ignore_label: {ignored} }}")
    (folder / "net.prototxt").write_text(net)
    _, err = train("--iterations", "1", folder=folder, status=int(refused))
    expected = f"error: layer 'loss1': has scores for classes 0 … 2, but the label {label} comes"
    assert (expected in err) is refused
    assert (f"add ignore_label: {label} to the layer" in err) is refused


@pytest.mark.parametrize(
    ("layer", "refused"),
    [
        ('"SoftmaxWithLoss" softmax_param { axis: 2 }', False),
        ('"SoftmaxWithLoss" softmax_param { axis: 1 }', True),
        ('"InfogainLoss" bottom: "gains" infogain_loss_param { axis: -1 }', False),
        ('"Accuracy" accuracy_param { axis: 2 }', False),
        ('"Accuracy" accuracy_param { axis: 1 }', True),
    ],
)
def test_labels_are_looked_up_along_the_layers_own_axis(folder, layer, refused):
    """Three scores along axis 1, five along axis 2, and the label 4."""
    labels = "dim: 2 dim: 5" if refused else "dim: 2 dim: 3"
    text = f"""layer {{ name: "data" type: "DummyData" top: "score" top: "label" top: "gains"
      dummy_data_param {{ shape {{ dim: 2 dim: 3 dim: 5 }} shape {{ {labels} }}
        shape {{ dim: 1 dim: 1 dim: 5 dim: 5 }}
        data_filler {{ value: 1 }} data_filler {{ value: 4 }} data_filler {{ value: 1 }} }} }}
      layer {{ name: "judge" bottom: "score" bottom: "label" top: "judged" type: {layer} }}"""
    Path("judge.prototxt").write_text(text)
    net = caffe.Net("judge.prototxt", caffe.TEST)
    message = text_format.Parse(text, caffe_pb2.NetParameter())
    health.watch_labels(net, [message])
    if refused:
        with pytest.raises(InputError, match="has scores for classes 0 … 2, but the label 4 comes"):
            net.forward()
    else:
        net.forward()


def wait_until_quiet(folder: Path) -> int:
    """The rows of a killed run, after its worker has ended too."""
    before = -1
    while before != (count := len(rows(folder))):
        before = count
        time.sleep(0.2)
    return count


@pytest.mark.slow
def test_same_losses_and_weights_as_caffe_train(folder):
    """Without dropout nothing is random but the initial weights: then the two do not differ."""
    write_net(folder, shuffle="false", dropout=1e-9)
    program = Path(sys.executable).with_name("caffe")
    program = str(program) if program.exists() else shutil.which("caffe")
    if not program:
        pytest.skip("the caffe program is not installed")
    (folder / "runs").mkdir()
    plain = subprocess.run(
        [program, "train", "-solver", "solver.prototxt"],
        cwd=folder,
        env=environment(folder),
        text=True,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert plain.returncode == 0, plain.stderr[-2000:]
    (folder / "plain.log").write_text(plain.stderr)
    (folder / "runs").rename(folder / "plain")
    train(folder=folder)

    ours, theirs = log.read(folder / "runs/tiny.csv"), log.read(folder / "plain.log")
    assert sorted(ours.losses) == ["loss1", "loss2", "total_loss"]
    for name, points in ours.losses.items():
        assert sorted(points) == list(range(60))
        np.testing.assert_allclose(
            [theirs.losses[name][k] for k in points], list(points.values()), 1e-5, 1e-6
        )
    assert ours.tests.keys() == theirs.tests.keys() == {"loss1", "loss2", "total_loss"}
    for name, points in ours.tests.items():
        assert list(points) == list(theirs.tests[name]) == [0, 20, 40, 60]
        np.testing.assert_allclose(list(theirs.tests[name].values()), list(points.values()), 1e-5)
    for iteration in (12, 60):
        name = f"tiny_iter_{iteration}.caffemodel"
        assert same_weights(folder / "runs" / name, folder / "plain" / name)
    # Our own copy of Caffe's log says the same.
    assert log.read(folder / "runs/tiny.log").tests == theirs.tests


@pytest.mark.slow
def test_nan_in_the_data_stops_the_run_and_names_the_layer(folder):
    net = (folder / "net.prototxt").read_text()
    source = net[net.index("layer {") : net.index('layer { name: "slow"')]
    faulty = """layer { name: "data" type: "Python" top: "image" include { phase: TRAIN }
      python_param { module: "faulty" layer: "Faulty" param_str: '{"nan_at": 30}' } }
    layer { name: "labels" type: "DummyData" top: "label" include { phase: TRAIN }
      dummy_data_param { shape { dim: 4 dim: 1 } } }"""
    test_only = source[source.index('layer { name: "test_data"') :]
    (folder / "net.prototxt").write_text(net.replace(source, faulty + test_only))
    out, err = train("--json", folder=folder, status=1)
    summary = json.loads(out)
    assert summary["outcome"] == "diverged" and summary["iteration"] == 30
    assert summary["culprit"] == {"layer": "data", "kind": "data", "blob": "image"}
    assert Path(summary["snapshot"]).name == "tiny_iter_24.solverstate"
    assert Path(summary["weights"]).name == "tiny_iter_24.caffemodel"
    assert "error: iteration 30: the loss is nan; in net order it starts in the data" in err
    assert "tiny_iter_24" in err
    assert rows(folder)[-1]["total_loss"] == "nan"
    assert not list((folder / "runs").glob("*_iter_30.*"))


@pytest.mark.slow
def test_snapshot_of_infinite_weights_is_not_kept(folder):
    arguments = ("--set", "base_lr=3e38", "--set", "snapshot=1")
    _, err = train(*arguments, folder=folder, status=1)
    assert "iteration 1: the update is not finite; in net order it starts in the weights" in err
    assert "clip_gradients" in err
    assert snapshots.find(folder / "runs/tiny") == []


@pytest.mark.parametrize(
    ("layer", "poison", "expected"),
    [
        ("bad", "data", health.Culprit("bad", "data", "x")),
        ("ip", "weights", health.Culprit("ip", "weights", "parameter 0")),
        ("log", "activation", health.Culprit("log", "activation", "y")),
    ],
)
def test_first_not_finite_in_net_order(tmp_path, layer, poison, expected):
    path = tmp_path / "net.prototxt"
    path.write_text(
        """
        layer { name: "bad" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param {
          num_output: 2 bias_term: false weight_filler { type: "constant" value: 1 } } }
        layer { name: "log" type: "Log" bottom: "ip" top: "y" }
        layer { name: "after" type: "Power" bottom: "y" top: "z" }
        """
    )
    net = caffe.Net(str(path), caffe.TEST)
    net.blobs["x"].data[...] = 1
    net.forward()
    assert health.first_not_finite(net) is None
    if poison == "data":
        net.blobs["x"].data[1, 2] = np.inf
    elif poison == "weights":
        net.params["ip"][0].data[0, 1] = np.nan
    else:
        net.blobs["x"].data[...] = -1
    net.forward()
    assert health.first_not_finite(net) == expected


@pytest.mark.slow
def test_a_failed_check_of_caffe_is_shown(folder):
    text = (folder / "net.prototxt").read_text()
    (folder / "net.prototxt").write_text(text.replace("kernel_size: 1", "kernel_size: 9"))
    _, err = train(folder=folder, status=1)
    assert err.count("\n") == 1
    assert "error: Caffe stopped: layer 'conv': Check failed" in err and "runs/tiny.log" in err
    assert "Check failed" in (folder / "runs/tiny.log").read_text()


@pytest.mark.slow
def test_broken_snapshots_are_skipped(folder, caplog):
    train(folder=folder)
    state = folder / "runs/tiny_iter_60.solverstate"
    snapshots.verify(state)
    whole, model = state.read_bytes(), state.with_suffix(".caffemodel")
    for broken in (whole[: len(whole) // 2], whole[:-2], b""):
        state.write_bytes(broken)
        assert snapshots.newest_good("runs/tiny").name == "tiny_iter_48.solverstate"
        assert "tiny_iter_60.solverstate: is truncated" in caplog.text
        caplog.clear()
    state.write_bytes(whole)
    for broken in truncated_weights(model):
        model.write_bytes(broken)
        assert snapshots.newest_good("runs/tiny").name == "tiny_iter_48.solverstate"
        assert "tiny_iter_60.caffemodel: is truncated" in caplog.text
        caplog.clear()
    model.unlink()
    shutil.copy(folder / "runs/tiny_iter_36.solverstate", folder / "runs/tiny_iter_48.solverstate")
    assert snapshots.newest_good("runs/tiny").name == "tiny_iter_36.solverstate"
    assert "iteration 36, not that of its name" in caplog.text
    # The command continues from there, and writes those after it again.
    _, err = train("--resume", folder=folder)
    assert "warning: " in err and "tiny_iter_36" in err
    assert state.read_bytes() == whole


def truncated_weights(model: Path) -> list[bytes]:
    """Cut in the middle, and between two layers, where what is left is well-formed."""
    net = caffe_pb2.NetParameter()
    net.ParseFromString(model.read_bytes())
    del net.layer[-3:]
    while net.layer[-1].blobs:
        del net.layer[-1]
    return [model.read_bytes()[:-100], net.SerializeToString()]


@pytest.mark.slow
def test_disk_without_room_for_two_snapshots(folder, monkeypatch):
    train("--iterations", "12", folder=folder)
    files = [folder / "runs" / f"tiny_iter_12.{kind}" for kind in ("caffemodel", "solverstate")]
    net = caffe.Net("net.prototxt", caffe.TEST)
    plan = make_plan(str(folder / "solver.prototxt"), resume=True)
    estimate = snapshots.size(net, plan.parameters())
    numbers = sum(path.stat().st_size for path in files)
    assert estimate - snapshots.OVERHEAD < numbers < estimate
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * estimate - 1))
    with pytest.raises(InputError, match="0.1 MB free, but two snapshots of this net need 0.1 MB"):
        Training(make(folder, overwrite=True, cpu=True), StopRequest(), io.StringIO())
    assert all(path.exists() for path in files)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * estimate))
    Training(make(folder, overwrite=True, cpu=True), StopRequest(), io.StringIO())


@pytest.mark.slow
def test_a_python_layer_that_cannot_be_imported(folder):
    (folder / "faulty.py").write_text("import no_such_package")
    _, err = train(folder=folder, status=1)
    assert err.startswith("error: layer 'slow': faulty.Faulty cannot be imported (No module named")


def make(folder: Path, **options):
    return make_plan(**options)


def test_plan_takes_what_caffe_would_take(folder):
    (folder / "w.caffemodel").touch()
    plan = make(folder, weights="w.caffemodel", settings=("stepvalue=3", "stepvalue=5"))
    solver = plan.parameters()
    assert list(solver.weights) == [str(folder / "w.caffemodel")]
    assert list(solver.stepvalue) == [3, 5] and solver.max_iter == 60 and solver.random_seed == 7
    assert plan.prefix == str(folder / "runs/tiny") and plan.csv == folder / "runs/tiny.csv"
    # Caffe's own rules for a prefix that is missing, or a folder.
    (folder / "solver.prototxt").write_text('net: "net.prototxt" max_iter: 5')
    assert make(folder).prefix == str(folder / "solver")
    assert make(folder, settings=("snapshot_prefix=runs",)).prefix == str(folder / "runs/solver")
    assert make(folder).parameters().random_seed == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": ("nonsense=1",)}, "--set nonsense: is not a simple field"),
        ({"settings": ("max_iter=soon",)}, "--set max_iter=soon: "),
        ({"settings": ("max_iter",)}, "--set max_iter: expected key=value"),
        ({"settings": ("gamma=1", "gamma=2")}, "--set gamma: given 2 times"),
        ({"settings": ("net=other.prototxt",)}, "other.prototxt: cannot be read"),
        ({"settings": ("net=solver.prototxt",)}, "solver.prototxt: is not a Caffe NetParameter"),
        ({"settings": ("snapshot_format=HDF5",)}, "snapshot_format HDF5"),
        ({"weights": "missing.caffemodel"}, "missing.caffemodel: cannot be read"),
        ({"settings": ("weights=w.caffemodel",)}, "w.caffemodel: the initial weights do not"),
        ({"settings": ("iter_size=0",)}, "solver.prototxt: iter_size is 0 where at least 1 is"),
        ({"settings": ("iter_size=-1",)}, "iter_size is -1 where at least 1 is needed"),
        ({"settings": ("average_loss=0",)}, "average_loss is 0 where at least 1 is needed"),
        ({"settings": ("snapshot=-2",)}, "snapshot is -2 where at least 0 is needed"),
        ({"settings": ("display=-1",)}, "display is -1 where at least 0 is needed"),
        ({"settings": ("test_interval=-1",)}, "test_interval is -1 where at least 0 is needed"),
        ({"settings": ("test_iter=2", "test_iter=0")}, "test_iter is 0 where at least 1 is"),
        ({"settings": ("stepsize=0",)}, "stepsize is 0 where at least 1 is needed"),
        ({"settings": ("momentum=nan",)}, "momentum is nan where a finite number is needed"),
        ({"settings": ("clip_gradients=-inf",)}, "clip_gradients is -inf where a finite number"),
        ({"weights": "w\udcff.caffemodel"}, "w\udcff.caffemodel: is not a path in UTF-8"),
        ({"resume": True}, "nothing to resume"),
        ({"resume": True, "weights": "w"}, "--resume and --weights exclude each other"),
        ({"cpu": True, "gpu": "0"}, "--cpu and --gpu exclude each other"),
    ],
)
def test_wrong_options_are_refused(folder, options, message):
    with pytest.raises(InputError, match=message):
        make(folder, **options)


def test_numbers_that_do_not_count_may_be_anything(folder):
    make(folder, settings=("test_interval=0", "test_iter=0"))
    make(folder, settings=("lr_policy=fixed", "stepsize=0", "snapshot=0", "display=0"))


def test_a_solver_whose_path_is_not_utf8(folder):
    text = (folder / "solver.prototxt").read_text().replace('snapshot_prefix: "runs/tiny"', "")
    (folder / "s\udcff.prototxt").write_text(text)
    with pytest.raises(InputError, match="s\udcff: is not a path in UTF-8"):
        make_plan("./s\udcff.prototxt")


def test_options_that_exclude_each_other_are_usage_errors(folder):
    for options in (("--resume", "--overwrite"), ("--cpu", "--gpu", "0"), ("--set", "max_iter")):
        run = CliRunner().invoke(main, ["train", "./solver.prototxt", *options])
        assert run.exit_code == 2, run.output
        assert "main train [OPTIONS] MODEL" in run.stderr


def test_several_gpus_without_cuda_or_nccl(folder):
    if caffe.has_nccl():
        pytest.skip("this Caffe has NCCL")
    with pytest.raises(InputError, match="--gpu 0,1: this .* (without CUDA|GPU|without NCCL)"):
        make(folder, gpu="0,1")


def test_an_earlier_run_is_not_overwritten_by_accident(folder):
    (folder / "runs").mkdir()
    for iteration in (40, 60):
        (folder / f"runs/tiny_iter_{iteration}.solverstate").touch()
    with pytest.raises(InputError, match="tiny_iter_60.solverstate: exists .* --overwrite"):
        make(folder)
    assert make(folder, overwrite=True).resume is None
    with pytest.raises(InputError, match="none of these snapshots is complete"):
        make(folder, resume=True)


def test_weights_whose_solverstate_is_gone_are_not_overwritten_by_accident(folder):
    (folder / "runs").mkdir()
    kept = folder / "runs/tiny_iter_20.caffemodel"
    kept.write_bytes(b"hours")
    with pytest.raises(InputError, match=r"tiny_iter_20.caffemodel: exists .* --overwrite"):
        make(folder)
    made = record.RunRecord({"seed": 7})
    made.save(folder / "runs/tiny.run.json")
    assert make(folder).resume is None  # a run was killed before this snapshot was whole
    made.snapshots["20"] = {}
    made.save(folder / "runs/tiny.run.json")
    with pytest.raises(InputError, match=r"tiny_iter_20.caffemodel: exists .* --overwrite"):
        make(folder)
    assert make(folder, overwrite=True).resume is None
    snapshots.remove_all(folder / "runs/tiny")
    assert not kept.exists() and make(folder).resume is None


def test_a_table_of_somebody_else_is_not_overwritten_by_accident(folder):
    (folder / "runs").mkdir()
    (folder / "runs/tiny.csv").write_text("mine\n")
    with pytest.raises(InputError, match=r"tiny.csv: exists .* snapshot_prefix=FOLDER/NAME"):
        make(folder)
    assert make(folder, overwrite=True).resume is None
    record.RunRecord({"seed": 7}).save(folder / "runs/tiny.run.json")
    assert make(folder).resume is None  # of a run that has no snapshot yet


def test_what_a_run_killed_at_its_end_left_is_swept_though_nothing_is_left_to_train(folder):
    (folder / "runs").mkdir()
    (folder / "runs/tiny_iter_60.solverstate").touch()
    (folder / "runs/.lglstm-n5tgy7g1.png").write_bytes(b"half a picture")
    with pytest.raises(InputError, match="exists from an earlier run"):
        make(folder)
    assert [path.name for path in (folder / "runs").iterdir()] == ["tiny_iter_60.solverstate"]


@pytest.mark.slow
def test_weights_that_fit_no_layer_are_refused(folder):
    net = caffe_pb2.NetParameter()
    net.layer.add(name="stranger").blobs.add(data=[1.0]).shape.dim.append(1)
    (folder / "w.caffemodel").write_bytes(net.SerializeToString())
    _, err = train("--weights", "w.caffemodel", folder=folder, status=1)
    assert err == f"error: {folder}/w.caffemodel: none of its layers is in this net; " + (
        "give weights of the same backbone\n"
    )


@pytest.mark.slow
def test_what_weights_fill_and_what_they_lack_is_said(photos):
    """The blob of the data layer, its place, is neither."""
    train("--set", "max_iter=2", folder=photos)
    stored = caffe_pb2.NetParameter.FromString(
        (photos / "runs/tiny_iter_2.caffemodel").read_bytes()
    )
    assert [layer.name for layer in stored.layer if layer.blobs] == ["train_data", "conv", "score"]
    (photos / "all.caffemodel").write_bytes(stored.SerializeToString())
    stored.layer.remove(next(layer for layer in stored.layer if layer.name == "score"))
    (photos / "trunk.caffemodel").write_bytes(stored.SerializeToString())
    for name, said in (
        ("all", "fills 2 of 2 layers\n"),
        ("trunk", "fills 1 of 2 layers\nnot in these weights: score\n"),
    ):
        given = ("--weights", f"{name}.caffemodel", "--overwrite", "--set", "max_iter=2")
        _, err = train(*given, folder=photos)
        assert f"/{name}.caffemodel: {said}" in err
        assert ("not in these weights" in err) == (name == "trunk")


@pytest.mark.slow
@pytest.mark.parametrize("engine", [None, "onednn_winograd"])
def test_a_faster_engine_is_named_to_whoever_has_chosen_none(folder, engine, monkeypatch):
    monkeypatch.delenv("CAFFE_CONVOLUTION_ENGINE", raising=False)
    if engine:
        monkeypatch.setenv("CAFFE_CONVOLUTION_ENGINE", engine)
    _, err = train("--cpu", "--set", "max_iter=2", folder=folder)
    assert ("onednn_winograd is faster on a CPU: docs/performance.md" in err) == (not engine)


@pytest.mark.slow
def test_weights_of_another_classifier_are_refused(folder):
    train("--set", "max_iter=12", folder=folder)
    stored = caffe_pb2.NetParameter.FromString(
        (folder / "runs/tiny_iter_12.caffemodel").read_bytes()
    )
    name, blob = next((x.name, x.blobs[0]) for x in stored.layer if x.type == "Convolution")
    shape = "×".join(map(str, blob.shape.dim))
    blob.shape.dim[0] += 1
    blob.data.extend([0.0] * math.prod(blob.shape.dim[1:]))
    (folder / "w.caffemodel").write_bytes(stored.SerializeToString())
    _, err = train("--weights", "w.caffemodel", "--overwrite", folder=folder, status=1)
    assert f"layer '{name}' of the initial weights has the shape " in err
    assert f", not {shape} as in this net; `lglstm init-weights MODEL --from FILE" in err


RESUMED_LOG = """
I1122 16:16:45.219836 15952 solver.cpp:347] Iteration 0, Testing net (#0)
I1122 16:16:45.219836 15952 solver.cpp:414]     Test net output #0: accuracy = 0.25
I1122 16:16:45.219836 15952 solver.cpp:414]     Test net output #1: a = 2 (* 1 = 2 loss)
I1122 16:16:45.219836 15952 solver.cpp:414]     Test net output #2: b = 3 (* 0.5 = 1.5 loss)
I1122 16:16:45.219836 15952 solver.cpp:239] Iteration 0 (-1e+33 iter/s, 0s/2 iters), loss = 4
I1122 16:16:45.219836 15952 solver.cpp:258]     Train net output #0: a = 3 (* 1 = 3 loss)
I1122 16:16:45.219836 15952 sgd_solver.cpp:112] Iteration 0, lr = 0.1
I1122 16:16:45.219836 15952 solver.cpp:239] Iteration 10 (2 iter/s, 5s/10 iters), loss = 2
I1122 16:16:45.219836 15952 solver.cpp:239] Iteration 20 (2 iter/s, 5s/10 iters), loss = 9
I1122 16:16:45.219836 15952 solver.cpp:239] Iteration 15, loss = 1.5
I1122 16:16:45.219836 15952 solver.cpp:347] Iteration 16, Testing net (#1)
I1122 16:16:45.219836 15952 solver.cpp:414]     Test net output #0: accuracy = 0.5
I1122 16:16:45.219836 15952 solver.cpp:239] Iteration 16, loss = -nan
"""


def test_log_of_a_resumed_run(tmp_path):
    path = tmp_path / "caffe.log"
    path.write_text(RESUMED_LOG)
    run = log.read(path)
    assert list(run.losses["total_loss"]) == [0, 10, 15, 16]
    assert run.losses["total_loss"][15] == 1.5 and np.isnan(run.losses["total_loss"][16])
    assert run.losses["a"] == {0: 3.0}
    assert run.tests["total_loss"] == {0: 3.5} and run.tests["accuracy"] == {0: 0.25}
    assert run.tests["accuracy#1"] == {16: 0.5}


def test_smoothing_is_a_mean_over_what_came_before():
    values = np.arange(90, dtype=np.float64)
    assert smooth(values)[:4].tolist() == [0, 0.5, 1, 2]  # a window of 3
    assert smooth(np.array([5.0])).tolist() == [5]


def test_a_picture_leaves_nothing_in_memory(tmp_path, monkeypatch):
    figures = []

    def remembered(**options):
        figure = Figure(**options)
        figures.append(weakref.ref(figure))
        return figure

    monkeypatch.setattr(plot, "Figure", remembered)
    losses = {"total_loss": {k: 1 / (k + 1) for k in range(9)}}
    draw([log.Run("a", losses=losses)], tmp_path / "a.png")
    assert [figure() for figure in figures] == [None]


@pytest.mark.slow
def test_plot_draws_runs_of_both_kinds(tmp_path):
    (tmp_path / "caffe.log").write_text(RESUMED_LOG)
    (tmp_path / "run.csv").write_text(
        "iteration,lr,total_loss,a,b,seconds,data_seconds,test_total_loss\n"
        "0,0.1,4,3,1,0.5,0.1,3.5\n1,0.1,2,1,1,0.5,0.1,\n2,,,,,,,1.5\n"
    )
    command = [
        sys.executable,
        "-m",
        "lglstm.cli.main",
        "plot",
        "run.csv",
        "caffe.log",
        "-o",
        "c.png",
    ]
    result = subprocess.run(
        [*command, "--json"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    drawn = json.loads(result.stdout)["runs"]
    assert [(run["points"], run["last_iteration"], run["tests"]) for run in drawn] == [
        (2, 1, 2),
        (4, 16, 1),
    ]
    assert colors(tmp_path / "c.png") > 50
    run = log.read(tmp_path / "run.csv")
    draw([run], tmp_path / "one.png")
    assert Image.open(tmp_path / "one.png").width > 1.8 * Image.open(tmp_path / "c.png").width


def scalars(place: Path) -> dict[tuple[str, int], float]:
    """What TensorBoard shows: (tag, step) -> value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(place), {"scalars": 0}).Reload()
    return {(tag, e.step): e.value for tag in events.Tags()["scalars"] for e in events.Scalars(tag)}


def test_event_files_have_the_numbers_of_the_csv(folder):
    pytest.importorskip("tensorboard", reason="needs the package tensorboard")
    train("--tensorboard", "--iterations", "8", folder=folder)
    train("--tensorboard", "--overwrite", "--iterations", "5", folder=folder)
    train("--tensorboard", "--resume", "--iterations", "21", folder=folder)
    expected = {
        (events.tag(column), int(row["iteration"])): pytest.approx(float(value))
        for row in rows(folder)
        for column, value in row.items()
        if value and column != "iteration"
    }
    shown = scalars(folder / "runs/tiny.tensorboard")
    assert shown == expected
    assert {("train/total_loss", 20), ("test/total_loss", 20), ("run/lr", 0)} <= set(shown)


def test_without_tensorboard_one_sentence_says_what_to_do(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    result = CliRunner().invoke(main, ["train", "solver.prototxt", "--tensorboard"])
    assert result.exit_code == 1 and "pip install tensorboard, or leave" in result.stderr
    assert not list((folder / "runs").glob("*")) if (folder / "runs").exists() else True


def test_curves_say_what_net_they_are_of(tmp_path, monkeypatch):
    text = 'Initializing net from parameters: \nname: "horse"\nlayer {\n  name: "data"\n}\n'
    (tmp_path / "caffe.log").write_text(text + RESUMED_LOG)
    assert log.read(tmp_path / "caffe.log").title == "caffe (net horse)"
    (tmp_path / "seed_2.csv").write_text("iteration,lr,total_loss\n0,0.1,2.5\n1,0.1,2\n")
    assert log.read(tmp_path / "seed_2.csv").title == "seed_2"
    (tmp_path / "seed_2.log").write_text(text)
    assert log.read(tmp_path / "seed_2.csv").title == "seed_2 (net horse)"
    (tmp_path / "horse.csv").write_text((tmp_path / "seed_2.csv").read_text())
    (tmp_path / "horse.log").write_text(text)
    assert log.read(tmp_path / "horse.csv").title == "horse"
    figures = []
    monkeypatch.setattr(plot.Figure, "savefig", lambda figure, path, **_: figures.append(figure))
    monkeypatch.setattr(plot, "atomic_path", contextlib.nullcontext)
    draw([log.read(tmp_path / "seed_2.csv")], tmp_path / "curve.png")
    axes = figures[0].axes[0]
    assert axes.get_title() == "seed_2 (net horse): total loss"
    assert axes.get_yscale() == "log"


ODD = ("_u", "a$x_{$", r"$\frac$", "b\udcff")
"""Names that matplotlib leaves out, takes for mathematics or cannot draw."""


@pytest.mark.parametrize("names", [("x", *ODD), ODD[:1], ODD[1:2], ODD[3:]])
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_names_are_drawn_as_they_are(tmp_path, monkeypatch, names, suffix):
    shown = []
    legend = plot.Axes.legend
    monkeypatch.setattr(
        plot.Axes, "legend", lambda axes, *given: shown.append(legend(axes, *given))
    )
    parts = {name: {0: 2.0, 1: 1.0} for name in ("total_loss", "_part", r"$\frac$")}
    draw([log.Run(name, losses=parts) for name in names], tmp_path / f"curve{suffix}")
    assert (tmp_path / f"curve{suffix}").stat().st_size > 1000
    texts = [text.get_text() for each in shown for text in each.get_texts()]
    if len(names) == 1:
        assert texts == ["training (smoothed)", "_part", r"$\frac$"]
    else:
        escaped = (name.replace("\udcff", "\\udcff") for name in names)
        assert texts == [f"{name}: training (smoothed)" for name in escaped]


def test_a_loss_that_is_not_finite_is_null_in_json(tmp_path):
    (tmp_path / "run.csv").write_text("iteration,lr,total_loss\n0,0.1,4\n1,0.1,nan\n")
    words = ["plot", f"{tmp_path}/run.csv", "-o", f"{tmp_path}/c.png"]
    assert "run.csv: 2 losses, nan at iteration 1" in CliRunner().invoke(main, words).stdout
    shown = CliRunner().invoke(main, [*words, "--json"]).stdout
    assert "NaN" not in shown and json.loads(shown)["runs"][0]["last_loss"] is None


def test_a_curve_that_cannot_be_drawn_is_a_warning(folder, monkeypatch):
    def fail(*_):
        raise ArithmeticError("no such color")

    monkeypatch.setattr("lglstm.training.loop.draw", fail)
    told = io.StringIO()
    plan = make_plan(cpu=True, iterations=2)
    summary = Training(plan, StopRequest(), told).run()
    assert summary.outcome == "finished" and summary.snapshot.endswith("_iter_2.solverstate")
    assert "tiny.png: cannot be drawn (no such color); the numbers are in tiny.csv" in (
        told.getvalue()
    )


def colors(path: Path) -> int:
    return len(Image.open(path).convert("RGB").getcolors(1 << 20))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "iteration,total_loss\n0,lots\n", "a.csv: is not a CSV of lglstm train"),
        ("b.log", "no losses here\n", "b.log: holds no losses"),
        ("c.csv", None, "c.csv: cannot be read"),
    ],
)
def test_files_that_cannot_be_plotted(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        log.read(tmp_path / name)
    run = log.Run("x")
    run.losses["total_loss"][0] = 1.0
    with pytest.raises(InputError, match="curve.gif: unknown picture format"):
        draw([run], tmp_path / "curve.gif")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("iterations", "since", "kept"), [("70", "1", None), ("30", "1", None), ("1", None, 1)]
)
def test_a_saturated_loss_ends_the_run(folder, iterations, since, kept):
    """At once after some patience, or at the end of a run that is shorter."""
    with h5py.File(folder / "data.h5", "w") as file:  # nothing to tell the classes by
        file["image"] = np.zeros((10, 3, 2, 5), np.float32)
        file["label"] = np.arange(10, dtype=np.float32)[:, None] % 3
    write_net(folder, shuffle="false")
    blow_up = ("--set", "base_lr=1e8", "--set", "weight_decay=0", "--set", "snapshot=20")
    arguments = (*blow_up, "--set", "test_interval=1000", "--iterations", iterations, "--json")
    out, err = train(*arguments, folder=folder, status=1 if since else 0)
    summary = json.loads(out)
    if since:
        assert summary["outcome"] == "diverged"
        assert summary["iteration"] == min(int(iterations), 50)
        assert f"error: iteration {summary['iteration']}: since iteration 1 layer 'loss1' " in err
        assert "at Caffe's ceiling" in err and "lower base_lr" in err
        assert err.count("error: ") == 1
    assert [snapshots.iteration(state) for state in snapshots.find("runs/tiny")] == (
        [kept] if kept else []
    )


def fed(
    scores: np.ndarray, labels: np.ndarray, loss: str = "SoftmaxWithLoss", options: str = ""
) -> health.LossWatch:
    text = f"""
    layer {{ name: "s" type: "DummyData" top: "s" dummy_data_param {{
      shape {{ {" ".join(f"dim: {side}" for side in scores.shape)} }} }} }}
    layer {{ name: "l" type: "DummyData" top: "l" dummy_data_param {{
      shape {{ {" ".join(f"dim: {side}" for side in labels.shape)} }} }} }}
    layer {{ name: "loss" type: "{loss}" bottom: "s" bottom: "l" top: "loss" {options} }}
    """
    Path("watch.prototxt").write_text(text)
    net = caffe.Net("watch.prototxt", caffe.TRAIN)
    net.blobs["s"].data[...], net.blobs["l"].data[...] = scores, labels
    net._forward(len(net.layers) - 1, len(net.layers) - 1)
    watch = health.LossWatch(net, [text_format.Parse(text, caffe_pb2.NetParameter())])
    loss = float(net.blobs["loss"].data)
    watch.look(0, {"total_loss": loss, "loss": loss})
    return watch


def test_what_counts_as_saturated(folder):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 5, 6, 7)).astype(np.float32)
    labels = rng.integers(0, 5, (2, 1, 6, 7))
    wrong = (scores.argmax(1, keepdims=True) + 1) % 5
    assert fed(scores, labels).since is None
    assert fed(scores * 1e6, labels).since == 0
    assert fed(scores * 3e37, labels).since == 0  # their differences leave float32
    # Certain and right; wrong, but with a gradient that says how much; wrong at a few places only.
    assert fed(scores * 1e6, scores.argmax(1, keepdims=True)).since is None
    assert fed(scores * 20, wrong).since is None
    certain = np.where(np.arange(7) < 6, scores * 1e6, scores)
    assert fed(certain, wrong).since is None
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    flat = [np.moveaxis(x, 1, -1).reshape(84, -1) for x in (probabilities, wrong)]
    assert fed(*flat, "MultinomialLogisticLoss").since is None
    hard = (flat[0] == flat[0].max(1, keepdims=True)).astype(np.float32)
    assert fed(hard, flat[1], "MultinomialLogisticLoss").since == 0


def test_scores_are_compared_along_the_layers_own_axis(folder):
    scores = np.random.default_rng(0).normal(size=(2, 1, 7, 5)).repeat(6, 1).astype(np.float32)
    wrong = (scores.argmax(3) + 1) % 5
    assert fed(scores * 1e6, wrong, options="softmax_param { axis: 3 }").since == 0


def test_a_loss_that_grows_beyond_measure(folder):
    watch = fed(np.zeros((2, 1), np.float32), np.zeros((2, 1)), "EuclideanLoss")
    ends = [watch.look(k, {"total_loss": 2e4 * (k > 3)}) for k in range(1, 60)]
    assert ends.index(True) == 4 + health.PATIENCE - 2 and watch.since == 4
    assert "more than 10,000 times what the run began with" in watch.what
    watch.look(60, {"total_loss": 9e3})
    assert watch.since is None and watch.what == ""
