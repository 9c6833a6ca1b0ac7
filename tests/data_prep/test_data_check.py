"""`lglstm data`: check finds what is wrong with a set, show draws it, and the commands fit."""

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from data_help import SHAPE, horse, photo_bytes, save_label, voc
from PIL import Image

from lglstm.cli.main import main
from lglstm.common.images import read_label
from lglstm.common.labels import label_set
from lglstm.data_prep import check as check_module
from lglstm.data_prep import show
from lglstm.data_prep.check import check, nothing_to_learn_in
from lglstm.data_prep.horse_cow import HorseCowOptions, data_set
from lglstm.data_prep.prepare import prepare
from lglstm.layers.seg_list import read_list


def lglstm(*arguments):
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A prepared set of two training and two test examples, and no problem."""
    folder = tmp_path_factory.mktemp("sound")
    source = voc(folder, {name: [horse(left=k)] for k, name in enumerate("abcd")})
    for split, names in (("train", "a\nb\n"), ("test", "c\nd\n")):
        (folder / split).write_text(names)
    lists = {split: folder / split for split in ("train", "test")}
    prepare(data_set(source, HorseCowOptions(context=None), lists=lists), folder / "set", workers=1)
    return folder / "set"


@pytest.fixture
def data(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "set")


def problems(data):
    found = check(data, workers=1)
    assert found["ok"] == (not found["problems"])
    return found["problems"]


def test_a_sound_set_is_counted(data):
    found = check(data, workers=1)
    assert found["ok"] and found["label_set"] == "horse"
    text = (data / "train.txt").read_bytes()
    assert found["lists"]["train"] == {"examples": 2, "sha256": hashlib.sha256(text).hexdigest()}
    by_name = {entry["name"]: entry for entry in found["classes"]}
    assert by_name["tail"]["pixels"] == {"train": 2 * 70, "test": 2 * 70}
    assert by_name["ignore"]["images"] == {"train": 2, "test": 2}
    total = sum(entry["pixels"]["train"] for entry in found["classes"])
    assert total == 2 * SHAPE[0] * SHAPE[1]


def spoil_size(data):
    save_label(data / "labels/a_1.png", np.zeros((5, 5)))


def spoil_ids(data):
    save_label(data / "labels/a_1.png", np.full(SHAPE, 9))


def spoil_photo(data):
    path = data / "images/c_1.png"
    path.write_bytes(path.read_bytes()[:-900])


def lose_photo(data):
    (data / "images/a_1.png").unlink()


def copy_across(data):
    shutil.copy(data / "images/a_1.png", data / "images/c_1.png")


def recode_across(data):
    Image.open(data / "images/a_1.png").save(data / "images/c_1.png", compress_level=1)


def list_twice(data):
    with (data / "test.txt").open("a") as file:
        file.write("images/a_1.png labels/a_1.png\n")


def leave_out(data):
    (data / "test.txt").write_text("images/c_1.png labels/c_1.png\n")


def lead_outside(data):
    (data / "train.txt").write_text("../../etc/passwd labels/a_1.png\n")


def relabel(data, change, lists=("train", "test")):
    """Change all label maps of some lists."""
    for name in lists:
        for example in read_list(data / f"{name}.txt"):
            save_label(Path(example.label), change(np.asarray(Image.open(example.label))))


def mask_with_255(data):
    relabel(data, lambda label: np.where(label > 0, 255, 0))


def ignore_all(data):
    relabel(data, lambda label: np.full_like(label, 255), ["train"])


def mask_with_1(data):
    relabel(data, lambda label: np.where(label > 0, 1, 0))


def have_background_alone(data):
    relabel(data, np.zeros_like, ["test"])


def lose_a_class(data):
    relabel(data, lambda label: np.where(label == 4, 2, label), ["train"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (mask_with_255, "train.txt: its label maps have only 0 and 255, and 255 means unknown"),
        (mask_with_255, "test.txt: its label maps have only 0 and 255, and 255 means unknown"),
        (ignore_all, "train.txt: every pixel of its label maps is 255, which means unknown"),
        (
            mask_with_1,
            "'body' (2), 'leg' (3), 'tail' (4), so that cannot be learned; they look like",
        ),
        (have_background_alone, "test.txt: every pixel of its label maps is 0 ('background')"),
        (lose_a_class, "train.txt: no pixel of its label maps is 'tail' (4), so that cannot be"),
        (spoil_size, "is 5 × 5 pixels, its photo"),
        (spoil_ids, "outside the 5 classes"),
        (spoil_photo, "cut short"),
        (lose_photo, "does not exist"),
        (copy_across, "is the same photo as"),
        (recode_across, "is the same photo as"),
        (list_twice, "is the same photo as"),
        (leave_out, "1 files are in no list, first d_1.png"),
        (lead_outside, "leads outside the folder"),
    ],
)
def test_every_fault_is_found(data, spoil, message):
    spoil(data)
    assert any(message in problem for problem in problems(data)), problems(data)


def test_a_class_may_be_missing_in_the_test_list(data):
    relabel(data, lambda label: np.where(label == 4, 2, label), ["test"])
    assert problems(data) == []


@pytest.mark.parametrize("value", [255, 0])
def test_masks_of_0_and_255_are_found_behind_every_reader(tmp_path, value):
    """`data atr` and `data horse-cow` take them, since 255 is an id; `data check` fails."""
    mask = np.full(SHAPE, value, np.uint8)
    mask[10:50, 10:80] = 255
    for k in range(8):
        (tmp_path / "raw/JPEGImages").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"raw/JPEGImages/{k}.jpg").write_bytes(photo_bytes(SHAPE, seed=k))
        for folder in ("SegmentationClassAug", "Annotations_Part"):
            save_label(tmp_path / f"raw/{folder}/{k}.png", mask)
    for command in ("atr", "horse-cow"):
        result = lglstm(command, tmp_path / "raw", tmp_path / command, "--workers", 1)
        assert result.exit_code == 0, result.output
        result = lglstm("check", tmp_path / command, "--workers", 1)
        assert result.exit_code == 1
        assert "nothing to learn" in result.output and result.output.endswith("not ok\n")


def net_of(**options):
    settings = {"list": "set/train.txt", "batch_size": 1, "input_size": [9, 9], "num_classes": 5}
    layer = SimpleNamespace(layer="SegData", param_str=json.dumps(settings | options))
    return [SimpleNamespace(layer=[SimpleNamespace(python_param=layer)])]


def test_training_hears_of_it_before_it_begins(data):
    def said(**options):
        return list(nothing_to_learn_in(net_of(**{"train": True, **options}), data.parent))

    assert said() == [] == said(list="no/such/list") == said(num_classes=0)
    lose_a_class(data)
    assert ["'tail' (4)" in sentence for sentence in said()] == [True]
    assert said(train=False) == []
    mask_with_255(data)
    (sentence,) = said()
    assert sentence.startswith("set/train.txt: its label maps have only 0 and 255")
    assert said(train=False) == [sentence]


def test_training_looks_no_further_than_it_must(data, monkeypatch):
    read = []
    monkeypatch.setattr(
        check_module, "read_label", lambda *given: read.append(given) or read_label(*given)
    )
    assert list(nothing_to_learn_in(net_of(train=True), data.parent)) == []
    assert len(read) == 1


def test_the_command_prints_a_table_or_json_and_fails_on_problems(data, tmp_path):
    result = lglstm("check", data, "--workers", 1, "--sheet", tmp_path / "sheet.png")
    assert result.exit_code == 0, result.output
    assert "tail" in result.output and result.output.rstrip().endswith("sheet.png")
    assert Image.open(tmp_path / "sheet.png").width > 400
    lose_photo(data)
    result = lglstm("check", data, "--workers", 1, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["ok"] is False
    result = lglstm("check", tmp_path / "nothing")
    assert result.exit_code == 1 and "has no dataset.json" in result.output


def test_sets_are_prepared_from_the_command_line(tmp_path):
    assert (
        lglstm("synthetic", tmp_path / "drawn", "--train", 2, "--test", 1, "--size", 41).exit_code
        == 0
    )
    lists = [f"--{s}={tmp_path}/drawn/ImageSets/{s}.txt" for s in ("train", "test")]
    arguments = (
        "horse-cow",
        tmp_path / "drawn",
        tmp_path / "set",
        "--whole",
        "--workers",
        1,
        *lists,
    )
    result = lglstm(*arguments, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["examples"] == {"train": 2, "test": 1}
    result = lglstm(*arguments, "--neck", "head")
    assert result.exit_code == 1 and "with other options" in result.stderr
    result = lglstm("horse-cow", tmp_path / "drawn", tmp_path / "other", lists[0])
    assert result.exit_code == 2 and "give --train and --test together" in result.stderr


def test_show_draws_what_the_net_sees(data, tmp_path):
    output = tmp_path / "sheet.png"
    result = lglstm("show", data / "train.txt", "--augmented", "--size", 41, 57, "--output", output)
    assert result.exit_code == 0, result.output
    assert Image.open(output).width > show.VERSIONS * 300


def test_show_leaves_photos_out(data, tmp_path):
    output = tmp_path / "sheet.png"
    for more, expected in (((), True), (("--no-photos",), False)):
        arguments = ("show", data / "train.txt", "--size", 41, 57, *more, "--output", output)
        assert lglstm(*arguments).exit_code == 0
        # Photos are noise; all else has few colors.
        colors = Image.open(output).getcolors(1 << 20)
        assert (len(colors) > 1000) == expected


def test_show_takes_size_stride_and_changes_from_a_net(data, tmp_path):
    net = tmp_path / "train.prototxt"
    parameters = {
        "list": "elsewhere.txt", "batch_size": 4, "input_size": [33, 41], "label_stride": 4,
        "num_classes": 5, "train": True, "rotation": [-5, 5],
    }  # fmt: skip
    quoted = json.dumps(json.dumps(parameters))
    net.write_text(
        'layer { type: "Python" python_param { module: "lglstm.layers.seg_data" layer: "SegData" '
        f"param_str: {quoted} }} }}"
    )
    options = show.options_of_net(net, data / "train.txt", seed=3)
    assert options.input_size == (33, 41) and options.augmentation.rotation == (-5, 5)
    assert options.list == str(data / "train.txt") and options.seed == 3
    arguments = ("show", data / "train.txt", "--net", net, "--output", tmp_path / "sheet.png")
    assert lglstm(*arguments).exit_code == 0
    net.write_text("layer { }")
    result = lglstm(*arguments)
    assert result.exit_code == 1 and "has 0 SegData layers" in result.stderr


def test_sets_with_left_and_right_are_mirrored_with_their_swaps(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(photo_bytes((8, 6)))
    save_label(tmp_path / "labels/a.png", np.zeros((8, 6)), "atr")
    (tmp_path / "train.txt").write_text("images/a.jpg labels/a.png\n")
    options = show.options_for(tmp_path / "train.txt", label_set("atr"), (9, 9), seed=0)
    assert options.augmentation.mirror and options.augmentation.rotation == (0, 0)
    assert options.augmentation.mirror_swaps == ((9, 10), (12, 13), (14, 15))
    horses = show.options_for(tmp_path / "train.txt", label_set("horse"), (9, 9), seed=0)
    assert horses.augmentation.rotation != (0, 0)
