"""The page in the browser: its arithmetic in Node, and the whole of it in headless Chromium."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from convert_help import ROOT, assert_close, needs_caffe, write_weights

from lglstm.caffe_files import random_weights, read_net
from lglstm.common.errors import InputError
from lglstm.common.images import read_photo
from lglstm.common.labels import LABEL_SETS
from lglstm.common.preprocessing import MEAN_BGR, to_blob, to_label_map
from lglstm.convert.caffe_process import run_caffe

WEB = ROOT / "lglstm" / "convert" / "web"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_node = pytest.mark.skipif(not shutil.which("node"), reason="needs Node: apt install nodejs")
needs_browser = pytest.mark.skipif(
    not CHROMIUM or not (WEB / "node_modules").is_dir() or not shutil.which("node"),
    reason="needs Chromium, Node and `npm ci --prefix lglstm/convert/web`",
)


@needs_node
@pytest.mark.parametrize("size", [(13, 9), (40, 52), (13, 52)], ids=["area", "larger", "mixed"])
def test_the_page_prepares_photos_as_the_nets_were_trained(tmp_path, size):
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (31, 40, 3), np.uint8)
    scores = rng.standard_normal((4, *size)).astype(np.float32)
    rgba = np.concatenate([photo[..., ::-1], np.full((31, 40, 1), 255, np.uint8)], axis=2)
    script = f"""
        import {{ toBlob, toLabels }} from {json.dumps(str(WEB / "parse.js"))};
        const blob = toBlob({rgba.ravel().tolist()}, 40, 31, {list(size)}, {list(MEAN_BGR)});
        const labels = toLabels({scores.ravel().tolist()}, 4, {list(size)}, 40, 31);
        console.log(JSON.stringify({{ blob: [...blob], labels: [...labels] }}));
    """
    path = tmp_path / "run.mjs"
    path.write_text(script)
    made = json.loads(subprocess.run(["node", path], capture_output=True, check=True).stdout)
    assert_close(np.reshape(made["blob"], (3, *size)), to_blob(photo, size), relative=1e-5)
    labels = np.reshape(made["labels"], (31, 40))
    assert (labels == to_label_map(scores, (31, 40))).mean() > 0.999


@needs_caffe
@needs_browser
def test_the_page_in_chromium_shows_what_caffe_computes(tmp_path, monkeypatch):
    skimage = pytest.importorskip("skimage", reason="brings the photo")
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: see docs/convert.md")
    from lglstm.cli.convert import command

    monkeypatch.chdir(ROOT)
    net = read_net(ROOT / "models" / "demo" / "deploy.prototxt")
    weights = write_weights(tmp_path / "w.caffemodel", net, random_weights(net, seed=1))
    arguments = ["demo", str(weights), "--to", "web", "-o", str(tmp_path / "page"), "--no-verify"]
    assert CliRunner().invoke(command, arguments).exit_code == 0
    photo = Path(skimage.__file__).parent / "data" / "astronaut.png"
    no_photo = tmp_path / "no_photo.jpg"
    no_photo.write_text("no photo")
    with serve(tmp_path / "page") as url:
        browse = ["node", WEB / "browse.mjs", CHROMIUM, url, photo, no_photo, tmp_path]
        result = subprocess.run(browse, capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, result.stderr
    made = json.loads(result.stdout)
    assert made["problems"] == [] and made["foreign"] == []
    check_steps(made["seen"])
    pixels = read_photo(photo)
    size = net.inputs["data"][2:]
    (expected,) = run_caffe(net.path, weights, [{"data": to_blob(pixels, size)[None]}], ["score"])
    scores = np.frombuffer(base64.b64decode(made["scores"]), np.float32).reshape(made["dims"])
    assert_close(scores, expected["score"], relative=1e-4)
    labels = np.frombuffer(base64.b64decode(made["labels"]), np.uint8)
    truth = to_label_map(expected["score"][0], pixels.shape[:2])
    assert (labels.reshape(truth.shape) == truth).mean() > 0.9999
    assert all((tmp_path / f"{step}.png").stat().st_size > 5_000 for step in made["seen"])


def check_steps(seen: dict) -> None:
    """What a person sees: a sample or a result, never both, and no result of an earlier photo."""
    for step in ("sample", "photo"):
        assert "parsed in" in seen[step]["status"], seen[step]
        assert seen[step]["overlay"] and not seen[step]["sample"]
        drawn = {f"rgb({', '.join(map(str, color))})" for color in LABEL_SETS["horse"].colors[1:]}
        assert {color for color in seen[step]["colors"] if color} <= drawn
    assert any(seen["photo"]["colors"])
    for step in ("empty", "error"):
        assert seen[step]["sample"] and not seen[step]["overlay"] and not seen[step]["legend"]
    assert seen["error"]["status"] == "no_photo.jpg cannot be read as a picture by this browser."


class serve:
    """A static web server on this machine for the time of a test."""

    def __init__(self, folder: Path):
        handler = functools.partial(_Quiet, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/"

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_missing_runtime_is_named_with_the_command_that_gets_it(tmp_path, monkeypatch, elsewhere):
    """The folder that the command names exists, wherever one is."""
    from lglstm.cli.convert import command
    from lglstm.convert import page

    monkeypatch.setattr(page, "_RUNTIME", ("missing.wasm",))
    monkeypatch.chdir(tmp_path if elsewhere else ROOT)
    result = CliRunner().invoke(command, ["demo", "runs/w.caffemodel", "--to", "web"])
    assert isinstance(result.exception, InputError)
    path, advice = str(result.exception).split(": is missing; run: npm ci --prefix ")
    assert path.endswith("missing.wasm")
    assert (Path(advice) / "package-lock.json").is_file()


@pytest.fixture
def runtime(tmp_path, monkeypatch) -> Path:
    """A folder to build pages in, with what stands in for npm's files."""
    from lglstm.convert import page

    source = tmp_path / "web"
    shutil.copytree(WEB, source, ignore=shutil.ignore_patterns("node_modules"))
    dist = source / "node_modules" / "onnxruntime-web" / "dist"
    dist.mkdir(parents=True)
    for name in page._RUNTIME:
        (dist / name).write_text("runtime")
    monkeypatch.setattr(page, "_SOURCE", source)
    monkeypatch.chdir(ROOT)
    return tmp_path


def test_only_a_page_of_ours_is_replaced(runtime):
    """TensorFlow.js also names its models model.json."""
    pytest.importorskip("onnx")
    from lglstm.cli.convert import command

    net = read_net(ROOT / "models" / "demo" / "deploy.prototxt")
    weights = write_weights(runtime / "w.caffemodel", net, random_weights(net, seed=1))
    folder, about = runtime / "page", runtime / "page" / "model.json"
    folder.mkdir()

    def build() -> str:
        arguments = ["demo", str(weights), "--to", "web", "-o", str(folder), "--no-verify"]
        result = CliRunner().invoke(command, arguments)
        assert result.exception is None or isinstance(result.exception, InputError)
        return str(result.exception or "")

    for text in ("{}", '{"format": "layers-model"}', "[]", "no JSON"):
        about.write_text(text)
        assert build() == (
            f"{folder}: holds other files than such a page, which would be lost; give another "
            "--output"
        )
        assert about.read_text() == text
    about.unlink()
    for _ in range(2):  # empty, then a page
        assert build() == ""
        assert json.loads(about.read_text())["names"]
    (folder / "src").mkdir()
    (folder / "src" / "app.js").write_text("mine")
    assert build().startswith(f"{folder}: holds src, which is no part of such a page and would be")
    assert (folder / "src" / "app.js").read_text() == "mine"
