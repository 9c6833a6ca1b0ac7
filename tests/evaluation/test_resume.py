"""Cached results belong to contents, not to names and times; two runs never share a place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

caffe = pytest.importorskip("caffe", reason="needs Caffe: make setup")

from evaluation_help import COLORS, HORSE, color_list, color_net  # noqa: E402

from lglstm.cli.main import main  # noqa: E402
from lglstm.common.errors import InputError  # noqa: E402
from lglstm.common.files import atomic_path, write_text  # noqa: E402
from lglstm.common.images import read_label, write_label  # noqa: E402
from lglstm.common.locks import locked  # noqa: E402
from lglstm.evaluation import resume  # noqa: E402
from lglstm.evaluation.collection import ParsedPhoto, Photo, areas_csv  # noqa: E402


@pytest.fixture(scope="module")
def colors(tmp_path_factory):
    return color_net(tmp_path_factory.mktemp("net"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lglstm(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def areas(result):
    assert result.exit_code == 0, result.output
    return [entry["areas"] for entry in json.loads(result.stdout)]


def photo(path: Path, class_: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.tile(COLORS[class_], (24, 40, 1)))
    return path


# ------------------------------------------------------------------------------- tied to content


@pytest.mark.parametrize("out", [(), ("--output", "out")])
def test_photos_with_one_name_are_told_apart(colors, place, out):
    net = (colors[0], "--weights", colors[1], "--json", *out)
    for folder, class_ in ("A", 1), ("B", 2), ("A", 1):
        (own,) = areas(lglstm("predict", *net, photo(place / folder / "photo.png", class_)))
        assert own[HORSE.names[class_]] == 1


def test_optional_files_are_of_the_same_content_as_the_label_map(colors, place):
    net = ("predict", colors[0], "--weights", colors[1], "--output", "out", "--json")
    one = photo(place / "photo.png", 1)
    areas(lglstm(*net, one))
    overlay = (place / "out/overlays/photo.jpg").read_bytes()
    areas(lglstm(*net, photo(one, 2), "--no-overlays"))
    areas(lglstm(*net, one))
    assert (place / "out/overlays/photo.jpg").read_bytes() != overlay


def test_lists_with_equal_photo_names_have_their_own_numbers(colors, place):
    lists = [color_list(place / name, seed=seed) for seed, name in enumerate("ab")]
    net = ("evaluate", colors[0], "--weights", colors[1], "--labels", "horse", "--json")
    for out in ((), ("--output", "out")):
        for path in (*lists, lists[0]):
            result = lglstm(*net, "--list", path, *out)
            assert result.exit_code == 0, result.output
            assert json.loads(result.stdout)["metrics"]["mean_iou"] == 1


def test_equally_named_weights_have_folders_of_their_own(colors, place):
    listed = color_list(place / "data")
    net = caffe.Net(str(colors[0]), caffe.TEST)
    net.copy_from(str(colors[1]))
    net.params["nearest"][1].data[0] += 1e9
    (place / "other").mkdir()
    other = place / "other" / colors[1].name
    net.save(str(other))
    found = {}
    for weights in (colors[1], other):
        arguments = ("evaluate", colors[0], "--weights", weights, "--list", listed, "--json")
        found[weights] = json.loads(lglstm(*arguments).stdout)
    assert found[colors[1]]["predictions"] != found[other]["predictions"]
    assert found[colors[1]]["metrics"]["mean_iou"] == 1
    assert found[other]["weights_sha256"] != found[colors[1]]["weights_sha256"]


@pytest.mark.parametrize("what", ["MEAN_BGR", "code"])
def test_results_of_another_code_are_made_again(colors, place, monkeypatch, what):
    arguments = ("predict", colors[0], photo(place / "p.png", 1), "--weights", colors[1])
    assert lglstm(*arguments, "--output", "out").exit_code == 0
    label = place / "out/labels/p.png"
    before = label.stat().st_ino, label.stat().st_mtime_ns
    assert lglstm(*arguments, "--output", "out").exit_code == 0
    assert (label.stat().st_ino, label.stat().st_mtime_ns) == before
    if what == "code":
        changed = dict(resume.programs()) | {"code_sha256": "other"}
        monkeypatch.setattr(resume, "programs", lambda: changed)
    else:
        monkeypatch.setattr("lglstm.common.preprocessing.MEAN_BGR", (0, 0, 0))
    assert lglstm(*arguments, "--output", "out").exit_code == 0
    assert (label.stat().st_ino, label.stat().st_mtime_ns) != before


def test_copied_label_maps_are_not_taken_for_results(colors, place):
    net = ("predict", colors[0], "--weights", colors[1], "--output", "out", "--json")
    one, two = photo(place / "one.png", 1), photo(place / "two.png", 2)
    areas(lglstm(*net, one, two))
    shutil.copy(place / "out/labels/one.png", place / "out/labels/two.png")
    assert areas(lglstm(*net, one, two))[1]["body"] == 1


def test_foreign_predictions_json_protects_its_folder(colors, place):
    mine = place / "out/labels/mine.png"
    write_label(mine, np.zeros((2, 2), np.uint8), HORSE.palette)
    for text in ('[{"image_id": 1}]', '{"a": 1}', "no json"):
        (place / "out/predictions.json").write_text(text)
        result = lglstm(
            "predict", colors[0], photo(place / "p.png", 1), "--weights", colors[1], "-o", "out"
        )
        assert result.exit_code == 1
        assert "predictions.json: was not written by this program" in result.stderr
        assert mine.exists() and (place / "out/predictions.json").read_text() == text


def test_a_photo_that_changes_while_it_is_read_is_no_result(tmp_path):
    path = photo(tmp_path / "p.png", 1)

    def read():
        pixels = cv2.imread(str(path))
        photo(path, 2)
        os.utime(path, (1, 1))
        return pixels

    with pytest.raises(InputError, match="was written to while it was read"):
        resume.read_marked(path, read)


def test_another_convolution_engine_makes_results_again(colors, place, monkeypatch):
    arguments = ("predict", colors[0], photo(place / "p.png", 1), "--weights", colors[1])
    assert lglstm(*arguments, "--output", "out").exit_code == 0
    before = (place / "out/labels/p.png").stat().st_mtime_ns
    monkeypatch.setenv("CAFFE_CONVOLUTION_ENGINE", "onednn")
    assert lglstm(*arguments, "--output", "out").exit_code == 0
    assert (place / "out/labels/p.png").stat().st_mtime_ns != before


# -------------------------------------------------------------------------- what is not ours


def other_net(colors, place):
    """Weights that say background everywhere."""
    net = caffe.Net(str(colors[0]), caffe.TEST)
    net.copy_from(str(colors[1]))
    net.params["nearest"][1].data[0] += 1e9
    net.save(str(place / "other.caffemodel"))
    return place / "other.caffemodel"


def test_another_net_removes_our_results_alone(colors, place):
    """Files of others stay, whatever they are called, and so does what links lead to."""
    out = place / "out"
    arguments = ("predict", colors[0], "--output", "out", "--scores")
    photos = [photo(place / f"{name}.png", 1) for name in ("p", "q")]
    assert lglstm(*arguments, *photos, "--weights", colors[1]).exit_code == 0
    mine = [photo(path, 2) for path in (place / "precious/a.png", out / "labels/mine/b.png")]
    shutil.copy(out / "labels/p.png", place / "precious/ours.png")
    for name in ("overlays/mine.jpg", "scores/mine.npy", "videos/mine.mp4", "videos/mine.csv"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
        mine.append(out / name)
    (out / "labels/truth").symlink_to("../../precious")
    (out / "labels/link.png").symlink_to("p.png")
    done = lglstm(*arguments, photos[0], "--weights", other_net(colors, place))
    assert done.exit_code == 0, done.output
    assert all(path.is_file() for path in mine)
    assert (place / "precious/ours.png").is_file() and (out / "labels/link.png").is_symlink()
    assert not list(out.rglob("q.*"))
    assert (read_label(out / "labels/p.png") == 0).all()


def clip(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (60, 40))
    for k in range(3):
        writer.write(np.tile(COLORS[k], (40, 60, 1)))
    writer.release()
    return path


def refused(*arguments):
    result = lglstm(*arguments)
    assert result.exit_code == 1, result.output
    return result.stderr


def test_no_input_is_replaced_by_its_own_results(colors, place):
    net = ("predict", colors[0], "-o", ".", "--weights")
    assert lglstm(*net, colors[1], photo(place / "a.png", 1)).exit_code == 0
    sources = [clip(place / "videos/trot.mp4"), place / "labels/a.png"]
    before = [path.read_bytes() for path in sources]
    for weights in (colors[1], other_net(colors, place)):
        for source in sources:
            words = "would be replaced by its own results; choose another folder with --output"
            assert words in refused(*net, weights, source)
    assert [path.read_bytes() for path in sources] == before


def test_no_listed_photo_is_replaced_by_its_label_map(colors, place):
    net = ("--weights", colors[1], "-o", "out")
    assert lglstm("predict", colors[0], *net, photo(place / "a.png", 1)).exit_code == 0
    color_list(place / "data")
    (place / "data/images").rename(place / "out/predictions")
    lines = (f"out/predictions/photo{k}.png data/labels/photo{k}.png\n" for k in range(3))
    (place / "list.txt").write_text("".join(lines))
    photos = sorted((place / "out/predictions").iterdir())
    before = [path.read_bytes() for path in photos]
    said = refused("evaluate", colors[0], *net, "--list", place / "list.txt", "--labels", "horse")
    assert "would be replaced by its own results" in said
    assert [path.read_bytes() for path in photos] == before


def test_foreign_files_are_not_replaced(colors, place):
    net = ("predict", colors[0], "--weights", colors[1], "-o", "out")
    assert lglstm(*net, photo(place / "a.png", 1)).exit_code == 0
    for mine, source in (
        (photo(place / "out/labels/b.png", 2), photo(place / "b.png", 1)),
        (clip(place / "out/videos/c.mp4"), clip(place / "c.mp4")),
    ):
        before = mine.read_bytes()
        assert f"{mine}: was not written by this program" in refused(*net, source)
        assert mine.read_bytes() == before
    (place / "own").mkdir()
    (place / "own/areas.csv").write_text("mine")
    words = "already holds files that this program did not write, such as "
    assert words + str(place / "own/areas.csv") in refused(*net[:-1], "own", place / "a.png")
    assert (place / "own/areas.csv").read_text() == "mine"


def test_results_are_not_written_through_links(colors, place):
    mine = photo(place / "precious/a.png", 2)
    before = mine.read_bytes()
    (place / "out").mkdir()
    (place / "out/labels").symlink_to("../precious")
    net = ("predict", colors[0], "--weights", colors[1], "-o", "out")
    assert "out/labels: is a link" in refused(*net, photo(place / "a.png", 1))
    assert mine.read_bytes() == before


# ------------------------------------------------------------------------------------- one place


def test_a_folder_in_use_is_refused(colors, place):
    listed = color_list(place / "data")
    net = (colors[0], "--weights", colors[1], "--output", "out")
    label_maps = ("evaluate", "--predictions", place / "data/labels", "--list", listed)
    with locked(place / "out"):
        for arguments in (
            ("predict", *net, photo(place / "p.png", 1)),
            ("evaluate", *net, "--list", listed),
            (*label_maps, "--labels", "horse", "--output", "out"),
        ):
            result = lglstm(*arguments)
            assert result.exit_code == 1
            assert f"out: process {os.getpid()} (" in result.stderr
            assert "is writing there; wait until it ends" in result.stderr
    assert not (place / "out/evaluation.json").exists()
    assert lglstm("evaluate", *net, "--list", listed).exit_code == 0


# ------------------------------------------------------------------------------- temporary files

KILLED = """
import os, signal, sys
from lglstm.common.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_only_temporary_files_of_dead_processes_are_swept(colors, place):
    labels = place / "out/labels"
    arguments = ("predict", colors[0], photo(place / "p.png", 1), "--weights", colors[1])
    assert lglstm(*arguments, "--output", "out").exit_code == 0
    mine = [".gitignore", ".p.abcdefgh.png", ".lglstm-notes.png", ".lglstm-abcdefgh.x.png"]
    for name in mine:
        (labels / name).write_text("mine")
    subprocess.run([sys.executable, "-c", KILLED, labels / "p.png"], check=False)
    before = set(labels.iterdir())
    assert len(before) == len(mine) + 2
    with atomic_path(labels / "q.png") as alive:
        assert lglstm(*arguments, "--output", "out").exit_code == 0
        assert {path.name for path in labels.iterdir()} == {*mine, "p.png", alive.name}
        alive.write_text("whole")
    assert (labels / "q.png").read_text() == "whole"


def test_files_are_on_the_disk_before_they_have_their_name(tmp_path, monkeypatch):
    """What a power cut leaves is in the order of these calls."""
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)

        def recorded(*arguments, name=name, original=original, **more):
            calls.append((name, (tmp_path / "a.txt").exists()))
            return original(*arguments, **more)

        monkeypatch.setattr(os, name, recorded)
    write_text(tmp_path / "a.txt", "text")
    assert calls == [("fsync", False), ("replace", False), ("fsync", True)]


# ------------------------------------------------------------------------------------- odd names


def test_names_of_any_length_and_bytes_are_parsed(colors, place):
    folder = place / "photos"
    longest = photo(folder / "p.png", 1).rename(folder / ("x" * 251 + ".png"))
    latin = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))
    shutil.copy(longest, latin)
    too_long = folder / ("y" * 255)
    shutil.copy(longest, too_long)
    result = lglstm(
        "predict", colors[0], folder, too_long, "--weights", colors[1], "-o", "out", "--json"
    )
    assert result.exit_code == 1
    entries = json.loads(result.stdout)
    assert [bool(entry.get("areas")) for entry in entries] == [True, True, False]
    assert "its name is too long" in entries[2]["error"]
    assert (place / "out/areas.csv").read_text().splitlines()[1].startswith("caf\\udce9,40,24,")
    assert (read_label(place / f"out/labels/{'x' * 251}.png") == 1).all()


def test_areas_of_names_that_are_not_utf_8():
    parsed = ParsedPhoto(Photo("caf\udce9", Path("x")), (1, 1), (1, 0, 0, 0, 0))
    assert "caf\udce9,1,1,1.0" in areas_csv([parsed], HORSE)


# -------------------------------------------------------------------------- a stranger's net

REACHING = {
    "HDF5Output": 'hdf5_output_param { file_name: "mine.txt" }',
    "Python": 'python_param { module: "evil" layer: "Evil" }',
    "HDF5Data": 'hdf5_data_param { source: "mine.txt" batch_size: 1 }',
    "ImageData": 'image_data_param { source: "mine.txt" batch_size: 1 }',
    "Data": 'data_param { source: "mine" batch_size: 1 }',
    "WindowData": 'window_data_param { source: "mine.txt" batch_size: 1 }',
    "InfogainLoss": 'infogain_loss_param { source: "mine.txt" }',
}


@pytest.mark.parametrize("kind", REACHING)
@pytest.mark.parametrize("rule", ["", 'include { stage: "s" }', "exclude { phase: TRAIN }"])
def test_layers_that_reach_files_or_code_are_refused(colors, place, kind, rule):
    mine = place / "mine.txt"
    mine.write_text("mine")
    (place / "evil.py").write_text(f"open({str(mine)!r}, 'w')")
    net = place / "deploy.prototxt"
    more = f'layer {{ name: "more" type: "{kind}" {REACHING[kind]} {rule} }}'
    net.write_text(f'state {{ stage: "s" }} {colors[0].read_text()} {more}')
    one = photo(place / "p.png", 1)
    listed = color_list(place / "data")
    for arguments in (
        ("predict", net, one, "--weights", colors[1]),
        ("evaluate", net, "--list", listed, "--weights", colors[1]),
    ):
        result = lglstm(*arguments)
        assert result.exit_code == 1
        assert f'layer "more" of type {kind}' in result.stderr
        assert "--trust-net" in result.stderr
    assert mine.read_text() == "mine"


def test_a_net_in_both_forms_is_refused(colors, place):
    net = place / "deploy.prototxt"
    more = 'layers { name: "o" type: HDF5_OUTPUT hdf5_output_param { file_name: "mine.txt" } }'
    net.write_text(colors[0].read_text() + more)
    result = lglstm("predict", net, photo(place / "p.png", 1), "--weights", colors[1])
    assert result.exit_code == 1 and "upgrade_net_proto_text" in result.stderr


def test_what_only_training_has_and_what_is_trusted_runs(colors, place):
    one = photo(place / "p.png", 1)
    net = place / "deploy.prototxt"
    output = f'hdf5_output_param {{ file_name: "{place}/scores.h5" }}'
    layer = f'layer {{ name: "o" type: "HDF5Output" bottom: "score" bottom: "data" {output} %s }}'
    arguments = ("predict", net, one, "--weights", colors[1])
    net.write_text(colors[0].read_text() + layer % "include { phase: TRAIN }")
    assert lglstm(*arguments).exit_code == 0
    net.write_text(colors[0].read_text() + layer % "")
    assert lglstm(*arguments).exit_code == 1 and not (place / "scores.h5").exists()
    assert lglstm(*arguments, "--trust-net").exit_code == 0
    assert (place / "scores.h5").exists()


@pytest.mark.slow
def test_old_names_of_our_layers_do_not_run_a_folders_code(colors, place):
    """Version 0.1 called its module `layers.lg_lstm`, which a stranger's folder may hold."""
    (place / "layers").mkdir()
    (place / "layers/lg_lstm.py").write_text(f"open({str(place / 'ran')!r}, 'w')")
    net = place / "deploy.prototxt"
    more = """layer { name: "t" type: "Python" bottom: "data" top: "h" top: "m"
      python_param { module: "layers.lg_lstm" layer: "LGLSTMTransition"
        param_str: "{\\\\"num_output\\\\": 2}" } }"""
    net.write_text(colors[0].read_text() + more)
    arguments = ("predict", net, photo(place / "p.png", 1), "--weights", colors[1])
    code = f"from lglstm.cli.main import main; main({list(map(str, arguments))!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not (place / "ran").exists(), done.stderr


@pytest.mark.parametrize("pixels", [20, 40])
def test_a_huge_picture_is_nobodys_label_map(tmp_path, monkeypatch, recwarn, pixels):
    """Pillow warns of one that is too large, and refuses one that is twice as large."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15)
    picture = tmp_path / "labels" / "a.png"
    picture.parent.mkdir()
    Image.new("L", (pixels, 1)).save(picture)
    assert not resume.is_marked(picture)
    with pytest.raises(InputError, match="was not written by this program"):
        resume.refuse_harm(tmp_path, [], [picture])
    assert not recwarn.list
