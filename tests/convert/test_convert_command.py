"""`lglstm convert` as users call it: every format, the way back, and proofs that fail."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from convert_help import ROOT, convert, lg_lstm_net, make_net, needs_caffe, write_weights

from lglstm.caffe_files import random_weights, read_caffemodel, read_net
from lglstm.cli.main import main
from lglstm.common.hashing import sha256_of
from lglstm.convert import conversion, prove
from lglstm.convert.samples import Sample
from lglstm.convert.write import default_output

for package in ("torch", "onnx", "onnxruntime", "safetensors"):
    pytest.importorskip(package, reason=f"needs the package {package}: see docs/convert.md")


HALF = ("--precision", "float16")
DEMO = ROOT / "models" / "demo" / "deploy.prototxt"


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """Random weights of models/demo, with the layers that only training has."""
    net = read_net(ROOT / "models" / "demo" / "train.prototxt", "TRAIN")
    path = tmp_path_factory.mktemp("demo") / "demo.caffemodel"
    deploy = read_net(ROOT / "models" / "demo" / "deploy.prototxt")
    fixed = {x.name for x in deploy.layers} - {x.name for x in net.layers}
    assert {x.type for x in deploy.layers if x.name in fixed} <= {"Deconvolution"}
    return write_weights(path, net, random_weights(net, seed=1))


@pytest.fixture(autouse=True)
def from_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def blobs_of(path: Path) -> dict:
    return {x.name: [b.tobytes() for b in x.blobs] for x in read_caffemodel(path) if x.blobs}


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "w.h5", "m.safetensors", "m.pth"])
def test_every_format_and_back_is_bit_for_bit(demo, tmp_path, name):
    formats = {"w.npz": "npz", "w.safetensors": "safetensors", "w.h5": "hdf5"}
    there, back = tmp_path / name, tmp_path / "back.caffemodel"
    quick = ["--no-verify"]
    report = convert("demo", demo, "--to", formats.get(name, "pytorch"), "-o", there, *quick)
    assert report["options"]["verify"] is False
    convert("demo", there, "--to", "caffemodel", "-o", back, *quick)
    before, after = blobs_of(demo), blobs_of(back)
    assert {layer: after[layer] for layer in before} == before
    # The deploy net's fixed up-sampling: not in a training's snapshot, but in PyTorch's file.
    assert after.keys() - before.keys() <= {"score"}
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [name, f"{name}.json", "back.caffemodel", "back.caffemodel.json"]
    )


@pytest.mark.slow
@needs_caffe
@pytest.mark.parametrize(("format_", "name"), [("pytorch", "m.safetensors"), ("pytorch", "m.pth"),
                                               ("safetensors", "w.safetensors")])  # fmt: skip
def test_half_precision_is_half_the_size_and_proved_with_the_rounded_weights(
    demo, tmp_path, format_, name
):
    whole, half, back = (tmp_path / f"{kind}_{name}" for kind in ("whole", "half", "back"))
    back = back.with_suffix(".caffemodel")
    convert("demo", demo, "--to", format_, "-o", whole, "--no-verify")
    report = convert("demo", demo, "--to", format_, "-o", half, *HALF)
    assert half.stat().st_size < 0.65 * whole.stat().st_size
    assert report["exact_blobs"] > 10 and all(d["passed"] for d in report["differences"])
    moved = max(d["relative"] for d in report["rounding"])
    assert 1e-5 < moved < 1e-2, "random numbers are hardly ever those of half precision"
    convert("demo", half, "--to", "caffemodel", "-o", back)
    before, after = (
        {x.name: x.blobs for x in read_caffemodel(path) if x.blobs} for path in (demo, back)
    )
    for layer, blobs in before.items():
        for blob, read in zip(blobs, after[layer], strict=True):
            np.testing.assert_array_equal(read, blob.astype(np.float16).astype(np.float32))


def test_weights_that_half_precision_cannot_hold_are_refused(tmp_path):
    net, weights = make_net(tmp_path, lg_lstm_net(4, 2, True, False))
    key = next(iter(weights))
    weights[key].flat[0] = 70_000
    write_weights(tmp_path / "net.caffemodel", net, weights)
    files = (tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    message = convert(*files, "--to", "safetensors", *HALF, "--no-verify", code=1)
    assert "has weights up to 7e+04, but half precision ends at 65504" in message
    result = CliRunner().invoke(main, ["convert", *map(str, files), "--to", "npz", *HALF])
    assert result.exit_code == 2
    assert "--precision float16 is for --to pytorch, onnx, safetensors" in result.stderr


@needs_caffe
def test_a_conversion_proves_itself(demo, tmp_path):
    """By noise and a photo, for the output and each LG-LSTM layer, in the report beside it."""
    photo = tmp_path / "photo.png"
    import cv2

    cv2.imwrite(str(photo), np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8))
    made = tmp_path / "demo.onnx"
    report = convert("demo", demo, "--to", "onnx", "-o", made, "--preprocessing", "--photo", photo)
    assert (
        json.loads(made.with_name("demo.onnx.json").read_text()) | {"output": str(made)} == report
    )
    compared = {(d["sample"], d["blob"]) for d in report["differences"]}
    for sample in ("noise", "photo"):
        assert {
            (sample, "score"),
            (sample, "lg_lstm4_local"),
            (sample, "lg_lstm1_global"),
        } <= compared
    assert all(d["passed"] and d["relative"] <= 1e-4 and d["largest"] > 0.01
               for d in report["differences"])  # fmt: skip
    assert report["weights"]["sha256"] == sha256_of(demo)
    assert report["sha256"] == sha256_of(made)


@needs_caffe
@pytest.mark.parametrize(
    ("arguments", "words"),
    [([], " reads the file, too: it is within "), (["--any-size"], " cannot read the file (")],
)
def test_a_second_reader_is_tried(tmp_path, arguments, words, capfd):
    """OpenCV wants constant cells of the global grid, which any size has not."""
    make_net(tmp_path, lg_lstm_net(4, 2, True, False))
    files = (tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    report = convert(*files, "--to", "onnx", "-o", tmp_path / "net.onnx", *arguments)
    assert report["second_reader"].startswith("OpenCV ") and words in report["second_reader"]
    assert "OPENCV" not in capfd.readouterr().err


@needs_caffe
def test_a_wrong_conversion_is_not_kept(tmp_path, monkeypatch):
    """One direction moved: the proof says so, and there is no file."""
    make_net(tmp_path, lg_lstm_net(4, 2, True, False))
    from lglstm.convert import onnx_graph

    wrong = {4: [(-1, -1), (-1, 0), (1, -1), (0, -1)]}
    monkeypatch.setattr(onnx_graph, "DIRECTIONS", wrong)
    before = sorted(tmp_path.iterdir())
    message = convert(
        tmp_path / "net.prototxt", tmp_path / "net.caffemodel", "--to", "onnx", code=1
    )
    assert "the proof failed and nothing was written" in message
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
@needs_caffe
def test_a_net_trained_in_pytorch_runs_in_caffe(demo, tmp_path):
    import torch

    from lglstm.convert.torch import load, save

    start, trained = tmp_path / "start.safetensors", tmp_path / "trained.pth"
    convert("demo", demo, "--to", "pytorch", "-o", start, "--no-verify")
    net = load(start, train=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    _, label = (shape for shape in net.description["inputs"].values())
    photos = 50 * torch.randn(2, *net.description["inputs"]["data"][1:])
    net(photos, torch.randint(0, 5, (2, *label[1:]))).backward()
    optimizer.step()
    save(net, trained)
    made = tmp_path / "trained.caffemodel"
    report = convert("demo", trained, "--to", "caffemodel", "-o", made)
    assert report["reference"] == "PyTorch on the source"
    assert {d["blob"] for d in report["differences"]} >= {"score", "lg_lstm4_memory"}
    assert report["exact_blobs"] > 20
    assert blobs_of(made)["conv1"] != blobs_of(demo)["conv1"]


@pytest.mark.slow
@needs_caffe
def test_without_caffe_a_stored_reference_serves(demo, tmp_path, monkeypatch):
    stored = tmp_path / "demo.reference.npz"
    convert("demo", demo, "--to", "reference", "-o", stored)
    for module in (conversion, prove):
        monkeypatch.setattr(module, "caffe_is_there", lambda: False)
    made = tmp_path / "demo.safetensors"
    arguments = ("demo", demo, "--to", "pytorch", "-o", made)
    assert "there is no Caffe to compare with" in convert(*arguments, code=1)
    assert not made.exists()
    report = convert(*arguments, "--reference", stored)
    assert report["reference"].startswith("stored reference") and report["differences"]
    other = tmp_path / "other.caffemodel"
    shutil.copyfile(demo, other)
    with open(other, "ab") as file:
        file.write(bytes([10, 1, 120]))  # another name of the net: other bytes, the same weights
    message = convert("demo", other, "--to", "onnx", "--reference", stored, code=1)
    assert "was made from other weights" in message


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own that starts in a folder."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_the_torch_folder_works_alone(demo, tmp_path):
    """Copied into another project, without this repository, it loads and computes the same."""
    import torch

    from lglstm.convert.torch import load

    made = tmp_path / "demo.safetensors"
    convert("demo", demo, "--to", "pytorch", "-o", made, "--no-verify")
    project = tmp_path / "project"
    shutil.copytree(ROOT / "lglstm" / "convert" / "torch", project / "parsing")
    result = python(
        "import sys; sys.modules['lglstm'] = None; "
        "import torch; from parsing import load; torch.manual_seed(0); "
        "print(load('../demo.safetensors')(torch.randn(1, 3, 33, 41)).double().sum().item())",
        project,
    )
    torch.manual_seed(0)
    expected = load(made)(torch.randn(1, 3, 33, 41)).double().sum().item()
    assert float(result.stdout) == pytest.approx(expected, rel=1e-6), result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("there", ["nothing", "a module of the same name", "a common folder"])
def test_a_caffemodel_in_another_project(demo, tmp_path, there):
    """The folder alone says what it needs; with lglstm it reads, whatever folders the user has."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / "lglstm" / "convert" / "torch", project / "parsing")
    missing = "import sys; sys.modules['lglstm'] = None; "
    if there == "a module of the same name":
        (project / "lglstm.py").write_text("VERSION = 1\n")
    if there == "a common folder":
        for name in ("common", "convert", "layers"):
            (project / name).mkdir()
            (project / name / "__init__.py").write_text("raise SystemExit('of the user')\n")
    code = (
        f"from parsing import load_caffemodel; net = load_caffemodel({str(DEMO)!r}, {str(demo)!r})"
        "; print(net.name)"
    )
    result = python((missing if there == "nothing" else "") + code, project)
    if there == "a common folder":
        assert result.stdout == "demo_deploy\n", result.stderr
        return
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "ImportError: load_caffemodel reads Caffe's files with the Python package"
    )
    assert "--to pytorch` and use load" in last


def without(package: str, *arguments) -> subprocess.CompletedProcess[str]:
    """Run `lglstm convert demo …` where a Python package is not installed."""
    code = (
        f"import sys; sys.modules[{package!r}] = None; from lglstm.cli.main import main; "
        f"main({['convert', 'demo', *map(str, arguments)]!r})"
    )
    return python(code, ROOT)


@pytest.mark.slow
@needs_caffe
@pytest.mark.parametrize("target", ["npz", "safetensors", "hdf5", "caffemodel", "onnx", "pytorch"])
def test_without_caffe(demo, tmp_path, target):
    """Weights are compared bit for bit, nets with a reference; else one sentence says why not."""
    suffix = {"hdf5": ".h5", "pytorch": ".safetensors"}.get(target, f".{target}")
    made = tmp_path / f"made{suffix}"
    arguments = (demo, "--to", target, "-o", made)
    plain = without("caffe", *arguments)
    if target in ("onnx", "pytorch"):
        assert plain.returncode == 1 and plain.stderr.count("\n") == 1, plain.stderr
        assert plain.stderr.startswith("error: the Python package caffe is not installed here")
        assert "--reference FILE" in plain.stderr and "--no-verify" in plain.stderr
        assert not made.exists()
        stored = tmp_path / "demo.reference.npz"
        convert("demo", demo, "--to", "reference", "-o", stored)
        compared = without("caffe", *arguments, "--reference", stored)
        assert compared.returncode == 0, compared.stderr
        assert f"of stored reference {stored}" in " ".join(compared.stdout.split())
        made.unlink()
        assert without("caffe", *arguments, "--no-verify").returncode == 0
    else:
        assert plain.returncode == 0, plain.stderr
        assert "blobs kept bit for bit" in plain.stdout
    assert made.is_file()


def test_a_reference_is_refused_without_caffe(demo, tmp_path):
    made = tmp_path / "demo.reference.npz"
    result = without("caffe", demo, "--to", "reference", "-o", made)
    assert result.returncode == 1 and result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("error: a reference is made by Caffe, whose Python package")
    assert not made.exists()


@pytest.mark.slow
def test_a_missing_package_is_named(demo, tmp_path, monkeypatch):
    """The package, and never the name of this project, which is not on any index."""
    save = tmp_path / "demo.safetensors"
    convert("demo", demo, "--to", "safetensors", "-o", save)
    result = without("safetensors", save, "--to", "npz", "-o", tmp_path / "made.npz")
    assert result.returncode == 1 and result.stderr.count("\n") == 1, result.stderr
    assert "without the Python package safetensors" in result.stderr
    monkeypatch.setattr("lglstm.convert.write.is_installed", lambda package: False)
    message = convert("demo", demo, "--to", "onnx", "-o", tmp_path / "made.onnx", code=1)
    assert message == (
        "--to onnx: needs the Python packages onnx and onnxruntime; install with pip install onnx "
        "onnxruntime"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "give --to FORMAT"),
        ("--list --to npz", "--list converts nothing; leave out --to"),
        ("--list -o x.npz --photo p.png", "leave out --photo and --output"),
        ("--to npz --any-size", "--any-size is for --to onnx"),
        ("--to web --preprocessing", "--preprocessing is for --to onnx"),
        ("--to onnx --no-verify --photo p.png", "--photo and --no-verify exclude each other"),
        ("--to onnx --no-verify --reference r.npz", "--reference and --no-verify exclude"),
        ("--to onnx --photo p.png --reference r.npz", "--photo and --reference exclude each"),
        ("--to reference --no-verify", "--no-verify is for a conversion"),
        ("--to reference --reference r.npz", "--reference is for a conversion"),
        ("--to npz -o x.bin", "--output x.bin: files of --to npz end in .npz; give x.bin.npz"),
        ("--to pytorch -o x.npz", "end in .safetensors or .pth or .pt; give x.safetensors"),
        ("--to reference -o x", "end in .reference.npz or .npz; give x.reference.npz"),
        ("--to onnx -o x.pth", "--output x.pth: files of --to onnx end in .onnx; give x.onnx"),
        ("--to onnx --output labels", "--returns labels is what makes label maps"),
        ("--to web -o x.onnx", "--to web makes a folder; give x"),
        ("--to npz --returns labels", "--returns is for --to onnx"),
        ("--to onnx --returns labels --any-size", "--any-size and --returns exclude each"),
        ("--to pytorch --precision int8 --calibrate x", "--precision int8 is for --to onnx"),
        ("--to onnx --precision int8", "--precision int8 and --calibrate DIR go together"),
        ("--to onnx --calibrate x", "--precision int8 and --calibrate DIR go together"),
        ("--to onnx --test-list x", "--test-list is for --to onnx --precision float16 or int8"),
        ("--to pytorch --precision float16 --reference r.npz", "exclude each other"),
        ("--to tensorflow", "'tensorflow' is not one of"),
    ],
)
def test_usage_errors_exit_with_2(demo, arguments, words):
    result = CliRunner().invoke(main, ["convert", "demo", str(demo), *arguments.split()])
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split())


def test_the_result_is_written_beside_the_weights(demo, tmp_path):
    weights = tmp_path / "iter_10.caffemodel"
    shutil.copyfile(demo, weights)
    for target in ("npz", "hdf5", "safetensors", "caffemodel", "pytorch", "onnx"):
        report = convert("demo", weights, "--to", target, "--no-verify")
        assert Path(report["output"]).is_file()
    made = {path.name for path in tmp_path.iterdir()} - {weights.name}
    files = {"iter_10.npz", "iter_10.caffemodel.h5", "iter_10.caffe.safetensors"}
    files |= {"iter_10.converted.caffemodel", "iter_10.safetensors", "iter_10.onnx"}
    assert made == files | {f"{name}.json" for name in files}
    assert default_output(Path("runs/iter_10.caffemodel"), "_page") == Path("runs/iter_10_page")


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".safetensors", ".pth", ".caffemodel", ".bin"])
def test_a_damaged_weights_file_is_refused(demo, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"PK\x03\x04 not what the name says" * 9)
    message = convert("demo", path, "--to", "npz", "-o", tmp_path / "out.npz", code=1)
    assert str(path) in message and "\n" not in message
    assert not (tmp_path / "out.npz").exists()


class _Evil:
    def __reduce__(self):
        return print, ("this must never run",)


def test_no_foreign_pickle_is_run(tmp_path, capfd):
    import torch

    evil, array = tmp_path / "evil.pth", tmp_path / "evil.npz"
    torch.save({"state_dict": _Evil()}, evil)
    np.savez(array, **{"conv1/0": np.array([_Evil()], dtype=object)})
    for path in (evil, array):
        convert("demo", path, "--to", "npz", "-o", tmp_path / "out.npz", code=1)
    assert "never run" not in capfd.readouterr().out


def test_diverged_weights_are_refused(tmp_path):
    net, weights = make_net(tmp_path, lg_lstm_net(2, 0, True, False))
    weights["score.weight"][0] = np.nan
    bad = write_weights(tmp_path / "nan.caffemodel", net, weights)
    message = convert(tmp_path / "net.prototxt", bad, "--to", "npz", code=1)
    assert 'layer "score" holds NaN or infinity' in message


def test_differences_are_relative_to_the_largest_number():
    given = [Sample(("noise",), {})]
    expected = [{"score": np.float32([[1000, -2000]])}]
    for made, passed in (([1000, -2000.1], True), ([1000.3, -2000], False), ([np.nan, 0], False)):
        (difference,) = prove.compare(given, expected, [{"score": np.float32([made])}])
        assert difference.passed is passed
        assert difference.largest == 2000
