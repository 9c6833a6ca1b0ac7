"""Caffe, ONNX Runtime and PyTorch run the same nets, to the same scores, and say what they need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("onnxruntime", reason="needs onnx and onnxruntime")

from convert_help import write_weights

import lglstm
from lglstm.caffe_files import random_weights, read_net
from lglstm.cli.main import main
from lglstm.common.errors import InputError, UsageError
from lglstm.convert.caffe_process import caffe_is_there
from lglstm.convert.prove import TOLERANCE
from lglstm.data_prep.synthetic import draw_example
from lglstm.evaluation.engines import choose_backend, choose_gpu, net_files
from lglstm.evaluation.predictor import Predictor

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = [draw_example(index=k)[0] for k in range(3)]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of models/demo as a caffemodel, what convert makes of it, and a photo."""
    folder = tmp_path_factory.mktemp("engines")
    net = read_net(ROOT / "models/demo/deploy.prototxt")
    weights = write_weights(folder / "demo.caffemodel", net, random_weights(net, 1, contrast=60))
    made = {
        "scores.onnx": ("onnx",),
        "photo.onnx": ("onnx", "--preprocessing"),
        "any.onnx": ("onnx", "--any-size"),
        "labels.onnx": ("onnx", "--returns", "labels"),
    }
    for name, options in made.items():
        line = ("convert", "demo", weights, "--no-verify", "-o", folder / name, "--to", *options)
        run(*line)
    cv2.imwrite(str(folder / "photo.png"), cv2.resize(PHOTOS[0], (130, 80)))
    return folder


def scores(files, backend: str) -> np.ndarray:
    return Predictor(files, backend=backend).scores(PHOTOS)["score"]


@pytest.mark.skipif(not caffe_is_there(), reason="needs Caffe: make setup")
@pytest.mark.parametrize("name", ["demo.caffemodel", "scores.onnx", "photo.onnx", "any.onnx"])
def test_onnx_runtime_gives_caffes_scores(folder, name):
    expected = scores(net_files("demo", folder / "demo.caffemodel"), "caffe")
    alone = [net_files(folder / name)] if name.endswith(".onnx") else []
    for files in (net_files("demo", folder / name), *alone):
        made = scores(files, "onnx")
        assert made.shape == expected.shape
        assert 0 < np.abs(made - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.skipif(not caffe_is_there(), reason="needs Caffe: make setup")
def test_pytorch_gives_caffes_scores(folder, tmp_path):
    pytest.importorskip("torch", reason="needs torch")
    made = tmp_path / "demo.safetensors"
    run("convert", "demo", folder / "demo.caffemodel", "--to", "pytorch", "-o", made, "--no-verify")
    expected = scores(net_files("demo", folder / "demo.caffemodel"), "caffe")
    for files in (
        net_files(made),
        net_files("demo", made),
        net_files("demo", folder / "demo.caffemodel"),
    ):
        ours = scores(files, "torch")
        assert ours.shape == expected.shape
        assert 0 < np.abs(ours - expected).max() <= TOLERANCE * np.abs(expected).max()
    assert Predictor(net_files(made), backend="torch").engine.label_set.names[1] == "head"
    assert choose_gpu("torch", None, cpu=True) is None


def test_a_graph_bound_to_its_batch_takes_any_number_of_photos(folder, tmp_path):
    import onnx

    model = onnx.load(folder / "scores.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, tmp_path / "two.onnx")
    np.testing.assert_allclose(
        scores(net_files(tmp_path / "two.onnx"), "onnx"),
        scores(net_files(folder / "scores.onnx"), "onnx"),
        rtol=1e-5,
        atol=1e-6,
    )


def bind_to_no_photo(graph) -> None:
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 0


def fail_while_running(graph) -> None:
    """Put a Reshape before the scores that no number of them fits."""
    import onnx

    node = next(node for node in graph.node if graph.output[0].name in node.output)
    node.output[list(node.output).index(graph.output[0].name)] = "before"
    shape = onnx.numpy_helper.from_array(np.array([1, 5, 7, 7_777_777]), "shape")
    graph.initializer.append(shape)
    made = onnx.helper.make_node("Reshape", ["before", "shape"], [graph.output[0].name])
    graph.node.append(made)
    for axis in range(4):
        graph.output[0].type.tensor_type.shape.dim[axis].dim_param = f"d{axis}"
    del graph.value_info[:]


@pytest.mark.parametrize("change", [bind_to_no_photo, fail_while_running])
def test_a_graph_that_fails_while_it_runs_is_refused(folder, tmp_path, change):
    import onnx

    model = onnx.load(folder / "scores.onnx")
    change(model.graph)
    path = tmp_path / "changed.onnx"
    onnx.save(model, path)
    with pytest.raises(InputError, match=f"{path}: ONNX Runtime cannot run it"):
        Predictor(net_files(path), backend="onnx")


@pytest.mark.parametrize("size", [(0, 8), (8, 0), (8, 2**40)])
def test_a_graph_for_photos_that_there_cannot_be_is_refused(tmp_path, size):
    import onnx
    from onnx import TensorProto, helper

    kernel = helper.make_tensor("kernel", TensorProto.FLOAT, (5, 3, 1, 1), [0.0] * 15)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["data", "kernel"], ["score"])],
        "net",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, (1, 3, *size))],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, (1, 5, *size))],
        [kernel],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "odd.onnx")
    words = f"it takes photos as 1 × 3 × {size[0]} × {size[1]} numbers"
    with pytest.raises(InputError, match=words):
        Predictor(net_files(tmp_path / "odd.onnx"), backend="onnx")


def test_tensors_in_other_files_are_part_of_the_net(folder, tmp_path):
    import onnx

    model = onnx.load(folder / "scores.onnx")
    path = tmp_path / "x.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=1000)
    arguments = ("predict", path, folder / "photo.png", "-o", tmp_path / "out")
    run(*arguments)
    label = tmp_path / "out/labels/photo.png"
    before = label.stat().st_mtime_ns
    run(*arguments)
    assert label.stat().st_mtime_ns == before
    weights = np.fromfile(tmp_path / "w.bin", np.uint8)
    weights.view(np.float32)[: len(weights) // 8] *= 0.5
    weights.tofile(tmp_path / "w.bin")
    run(*arguments)
    assert label.stat().st_mtime_ns != before
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        for entry in tensor.external_data:
            entry.value = "../w.bin" if entry.key == "location" else entry.value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="x.onnx: keeps weights in a file outside its folder"):
        Predictor(net_files(path), backend="onnx")


def test_the_file_says_how_photos_go_in_and_what_the_classes_are(folder, tmp_path):
    """A net of another project: other colors first, another mean, pixels from 0 to 1."""
    import onnx

    model = onnx.load(folder / "scores.onnx")
    (entry,) = model.metadata_props
    about = json.loads(entry.value)
    about |= {"mean_bgr": [1.0, 2.0, 3.0], "scale": 0.5, "channel_order": "RGB"}
    about["label_set"] |= {"name": "mine", "names": ["a", "b", "c", "d", "e"]}
    entry.value = json.dumps(about)
    onnx.save(model, tmp_path / "other.onnx")
    engine = Predictor(net_files(tmp_path / "other.onnx"), backend="onnx").engine
    photo = PHOTOS[0]
    expected = 0.5 * (photo.astype(np.float32) - (1, 2, 3))[..., ::-1].transpose(2, 0, 1)
    np.testing.assert_allclose(engine.prepare(photo), expected)
    parsing = lglstm.Parser(tmp_path / "other.onnx").parse(photo)
    assert list(parsing.areas) == ["a", "b", "c", "d", "e"]


AS_ON_WINDOWS = """
import os, pathlib, sys
for name in ("fcntl", "caffe", "torch", "onnx"):
    sys.modules[name] = None  # what an import finds where there is none
for name in ("memfd_create", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "pread", "pwrite", "getuid"):
    delattr(os, name)
open_, replace = os.open, pathlib.Path.replace
def no_folders(path, *rest, **named):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return open_(path, *rest, **named)
def no_open_files(self, target):
    handles = [os.path.realpath(f"/proc/self/fd/{x}") for x in os.listdir("/proc/self/fd")]
    if os.path.realpath(self) in handles:
        raise PermissionError(32, "the file is being used by another process", str(self))
    return replace(self, target)
os.open, pathlib.Path.replace = no_folders, no_open_files
from lglstm.cli.main import main
main()
"""


def test_a_photo_is_parsed_without_caffe_torch_and_what_only_linux_has(folder, tmp_path):
    """As on Windows, as far as Linux can play it, from the ONNX file alone."""
    line = ["predict", folder / "scores.onnx", folder / "photo.png", "--json", "-o", "out"]
    done = subprocess.run(
        [sys.executable, "-c", AS_ON_WINDOWS, *line], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (photo,) = json.loads(done.stdout)
    parsing = lglstm.Parser(folder / "scores.onnx").parse(folder / "photo.png")
    assert photo["areas"] == pytest.approx(parsing.areas)
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == [
        "areas.csv", "photo.jpg", "photo.png", "predictions.json",
    ]  # fmt: skip


@pytest.mark.slow
def test_evaluate_takes_a_file_with_its_net(folder, tmp_path):
    run("data", "synthetic", tmp_path / "drawn", "--train", "1", "--test", "2")
    lists = [f"--{split}={tmp_path}/drawn/ImageSets/{split}.txt" for split in ("train", "test")]
    run("data", "horse-cow", tmp_path / "drawn", tmp_path / "data", "--whole", *lists)
    line = ("evaluate", folder / "scores.onnx", "--list", tmp_path / "data/test.txt", "--json")
    found = json.loads(run(*line, "-o", tmp_path / "out"))
    assert found["images"] == 2 and found["weights"] == str(folder / "scores.onnx")
    assert found["labels"] == "horse"


@pytest.mark.parametrize(
    ("model", "weights", "asked", "message"),
    [
        ("scores.onnx", None, "torch", "only onnx can run it; leave out --backend torch"),
        ("weights.pth", None, "caffe", "only torch can run it; leave out --backend caffe"),
        ("demo", "scores.onnx", "caffe", "only onnx can run it; leave out --backend caffe"),
    ],
)
def test_an_engine_that_cannot_run_a_file_is_refused(folder, model, weights, asked, message):
    files = net_files(folder / model if "." in model else model, weights and folder / weights)
    with pytest.raises(InputError, match=message):
        choose_backend(asked, files)


def test_what_cannot_be_run_is_said(folder, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="holds its weights itself; leave out --weights"):
        net_files("a.onnx", "b.caffemodel")
    with pytest.raises(InputError, match="does not make one map of scores of one photo"):
        Predictor(net_files(folder / "labels.onnx"), backend="onnx")
    (tmp_path / "bad.onnx").write_bytes((folder / "scores.onnx").read_bytes()[:-1000])
    with pytest.raises(InputError, match="bad.onnx: ONNX Runtime cannot load it"):
        Predictor(net_files(tmp_path / "bad.onnx"), backend="onnx")
    with pytest.raises(InputError, match="none.onnx: cannot be read"):
        Predictor(net_files(tmp_path / "none.onnx"), backend="onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    files = net_files("demo", folder / "demo.caffemodel")
    with pytest.raises(InputError, match="--backend torch: needs torch, not installed"):
        choose_backend("torch", files)
    with pytest.raises(InputError, match=r"without Caffe, install ONNX Runtime \(pip install onnx"):
        choose_backend(None, files)
