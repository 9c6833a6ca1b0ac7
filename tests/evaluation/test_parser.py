"""The Python interface, through Caffe: label map, areas and overlay of paths and arrays."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("caffe", reason="needs Caffe: make setup")

from evaluation_help import COLORS, HORSE, color_net, demo_weights

import lglstm
from lglstm.cli.main import main
from lglstm.common.errors import InputError
from lglstm.common.images import read_label
from lglstm.convert import caffe_process


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> lglstm.Parser:
    return lglstm.Parser(*color_net(tmp_path_factory.mktemp("net")), batch_size=2)


def halves(left: int, right: int, height: int = 30, width: int = 50) -> np.ndarray:
    """A photo whose left half is of one class's color, the right half of another's."""
    ids = np.full((height, width), left)
    ids[:, width // 2 :] = right
    return COLORS[ids]


def test_label_map_areas_and_overlay_of_an_array_and_of_a_path(
    parser: lglstm.Parser, tmp_path: Path
) -> None:
    photo = halves(0, 3)
    cv2.imwrite(str(tmp_path / "photo.png"), photo)
    for given in (photo, tmp_path / "photo.png", str(tmp_path / "photo.png")):
        result = parser.parse(given)
        assert result.label_map.shape == (30, 50) and result.label_map.dtype == np.uint8
        assert (result.label_map[:, :22] == 0).all() and (result.label_map[:, 28:] == 3).all()
        assert list(result.areas) == list(HORSE.names)
        assert result.areas["leg"] == pytest.approx(0.5, abs=0.03)
        assert sum(result.areas.values()) == pytest.approx(1)
        assert result.overlay.shape == photo.shape and result.overlay.dtype == np.uint8
        assert (result.overlay[:, :22] == photo[:, :22]).all()  # background stays as it is
        blue_green_red = np.array(HORSE.colors[3])[::-1]
        blended = COLORS[3] + 0.55 * (blue_green_red - COLORS[3].astype(float))
        np.testing.assert_allclose(
            result.overlay[:, 28:], np.broadcast_to(blended, (30, 22, 3)), atol=1
        )


def test_many_photos_come_back_in_their_order(parser: lglstm.Parser) -> None:
    photos = [halves(k % 5, k % 5, 20 + k, 40) for k in range(7)]
    results = list(parser.parse_all(photos))
    assert [result.label_map.shape for result in results] == [(20 + k, 40) for k in range(7)]
    assert all((result.label_map == k % 5).all() for k, result in enumerate(results))


def test_a_model_by_name_gives_what_the_command_writes(tmp_path: Path) -> None:
    weights, photo = demo_weights(tmp_path, seed=9), tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    cv2.imwrite(str(photo), cv2.resize(noise, (80, 60)))
    result = lglstm.Parser("demo", weights).parse(photo)
    run = CliRunner().invoke(
        main,
        ["predict", "demo", str(photo), "--weights", str(weights), "-o", str(tmp_path / "out")],
    )
    assert run.exit_code == 0, run.output
    assert (result.label_map == read_label(tmp_path / "out/labels/photo.png")).all()
    assert len(np.unique(result.label_map)) == 4


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3)), np.zeros((0, 5, 3), np.uint8)]
)
def test_what_is_not_a_photo_is_refused(parser: lglstm.Parser, wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"give \(H, W, 3\) uint8 in BGR order"):
        parser.parse(wrong)


def test_files_that_do_not_fit_are_refused(parser: lglstm.Parser, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        parser.parse(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="did you mean horse"):
        lglstm.Parser("hors", "weights.caffemodel")
    deploy, weights = color_net(tmp_path)
    with pytest.raises(InputError, match="the label set atr has 18"):
        lglstm.Parser(deploy, weights, labels="atr")
    with pytest.raises(InputError, match="gpu='cuda': give a number"):
        lglstm.Parser(deploy, weights, gpu="cuda")


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, lglstm\n"
        "heavy = {'numpy', 'cv2', 'caffe', 'lglstm.parser'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert lglstm.Parser.__name__ == 'Parser' and 'caffe' not in sys.modules\n"
        "assert not hasattr(lglstm, 'Parsre')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("wrong", [None, 5, [[[0]]], b"photo.png"])
def test_what_is_neither_pixels_nor_a_path_is_refused(parser: lglstm.Parser, wrong: object) -> None:
    with pytest.raises(InputError, match="a photo is of the type"):
        parser.parse(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [0, -1, "2", None, 1.5, True])
def test_a_wrong_batch_size_is_refused(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(InputError, match=r"batch_size=.*: give a whole number from 1"):
        lglstm.Parser(*color_net(tmp_path), batch_size=wrong)  # type: ignore[arg-type]


# Each would end a process in which Caffe builds it.
WRONG_NETS = [
    ("kernel_size: 1", "kernel_size: 0", "line 5: layer .nearest. .* kernel, .* must be positive"),
    ('bottom: "data"', 'bottom: "photo"', "line 5: layer .nearest. .* not a top of a layer before"),
    ("dim: 24", "dim: -4", "line 3: layer .data. .* is not positive"),
    (
        "kernel_size: 1",
        'kernel_size: 1 bias_filler { type: "random" }',
        r"Caffe cannot build this net \(Check failed: false Unknown filler name: random\); correct",
    ),
    (
        "num_output: 5",
        "num_output: 5 engine: CUDNN",
        r"Caffe cannot build this net \(Layer nearest has unknown engine.\); correct",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("right", "wrong", "words"), WRONG_NETS)
def test_a_net_that_caffe_cannot_build_is_refused(
    tmp_path: Path, right: str, wrong: str, words: str
) -> None:
    deploy, weights = color_net(tmp_path)
    deploy.write_text(deploy.read_text().replace(right, wrong))
    assert re.match(f"{re.escape(str(deploy))}: {words}", refusal(deploy, weights))


def refusal(model: object, weights: Path, **environment: str) -> str:
    """The InputError of a Parser, made in a process of its own."""
    code = (
        "import sys, lglstm\n"
        "from lglstm.common.errors import InputError\n"
        "try:\n"
        "    lglstm.Parser(*sys.argv[1:], gpu=None)\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(model), str(weights)]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.slow
def test_layers_that_only_caffe_knows_are_run(tmp_path: Path) -> None:
    deploy, weights = color_net(tmp_path)
    text = deploy.read_text().replace('top: "score"', 'top: "raw"')
    more = 'layer {{ name: "threshold" type: "Threshold" bottom: "raw" top: "score" {} }}'
    deploy.write_text(text + more.format(""))
    assert refusal(deploy, weights) == ""
    deploy.write_text(text + more.format('bottom: "raw"'))
    words = "Caffe cannot build this net (Check failed: "
    assert refusal(deploy, weights).startswith(f"{deploy}: {words}")


@pytest.mark.slow
def test_an_unknown_convolution_engine_is_refused(tmp_path: Path) -> None:
    weights = demo_weights(tmp_path)
    said = refusal("demo", weights, CAFFE_CONVOLUTION_ENGINE="mkl")
    assert said.startswith("CAFFE_CONVOLUTION_ENGINE=mkl: there is no such engine; set it to one")


def test_a_model_by_its_name_is_not_built_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    monkeypatch.setattr(caffe_process, "why_not_built", built.append)
    weights = demo_weights(tmp_path)
    lglstm.Parser("demo", weights, gpu=None)
    assert not built
    lglstm.Parser(*color_net(tmp_path), gpu=None)
    assert len(built) == 1
