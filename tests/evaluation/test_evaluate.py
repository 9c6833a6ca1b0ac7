"""Evaluation end to end: a net that is right by construction, resuming, and every bad input."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from scipy import ndimage

caffe = pytest.importorskip("caffe", reason="needs Caffe: make setup")

from evaluation_help import (  # noqa: E402
    COLORS,
    HORSE,
    color_list,
    color_net,
    demo_weights,
    draw_label,
)

from lglstm.cli.main import main  # noqa: E402
from lglstm.common.errors import InputError  # noqa: E402
from lglstm.common.images import read_label, write_label  # noqa: E402
from lglstm.common.labels import LABEL_SETS, LabelSet, numbered  # noqa: E402
from lglstm.common.models import find_model  # noqa: E402
from lglstm.evaluation import nets  # noqa: E402
from lglstm.evaluation.engines import net_files  # noqa: E402
from lglstm.evaluation.evaluator import evaluate_list  # noqa: E402
from lglstm.evaluation.label_choice import choose_labels  # noqa: E402
from lglstm.evaluation.metrics import Metrics  # noqa: E402
from lglstm.evaluation.predictor import Predictor  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO = REPOSITORY / "models/demo"


@pytest.fixture(scope="module")
def colors(tmp_path_factory):
    """(deploy, weights) of the net that classifies colors."""
    return color_net(tmp_path_factory.mktemp("net"))


@pytest.fixture
def listed(tmp_path):
    return color_list(tmp_path / "data")


def lglstm(*arguments):
    """Run the command line in the repository root; returns click's result."""
    before = Path.cwd()
    os.chdir(REPOSITORY)
    try:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])
    finally:
        os.chdir(before)


def error_of(*arguments):
    result = lglstm(*arguments)
    assert result.exit_code == 1, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    return lines[0]


# ------------------------------------------------------------------------- right by construction


def test_label_maps_have_the_photos_size_and_the_colors_classes(colors):
    rng = np.random.default_rng(1)
    labels = [draw_label(rng, *size) for size in ((24, 40), (96, 60), (8, 200), (240, 400))]
    photos = [COLORS[ids] for ids in labels]
    predictor = Predictor(net_files(*colors), batch_size=4)
    together = [prediction.label_map for prediction in predictor.predict(photos)]
    for ids, found, photo in zip(labels, together, photos, strict=True):
        assert found.dtype == np.uint8 and found.shape == ids.shape
        # Blocks wide enough not to vanish at the net's size are found but for their borders.
        inner = ndimage.maximum_filter(ids, 9) == ndimage.minimum_filter(ids, 9)
        assert (found == ids)[inner].all()
        assert (found == predictor.predict([photo])[0].label_map).all()  # the batch does not matter


def test_perfect_predictions_score_one_and_a_spoiled_truth_by_its_share(colors, listed, tmp_path):
    def evaluate(out):
        return evaluate_list(
            Predictor(net_files(*colors), batch_size=2), listed, HORSE, tmp_path / out
        )

    labels = [listed.parent / f"labels/photo{k}.png" for k in range(3)]
    counted = sum((read_label(label) != 255).sum() for label in labels)
    perfect = evaluate("perfect").metrics
    assert perfect.value("mean_iou") == 1 and perfect.value("average_f1") == 1
    assert perfect.matrix.sum() == counted

    ids = read_label(labels[1])
    own = (ids != 255).sum()
    ids[:24] = 255  # half is ignored
    wrong = ids[24:30] != 255
    ids[24:30][wrong] = (ids[24:30][wrong] + 1) % 5  # and some of the rest another class
    write_label(labels[1], ids, HORSE.palette)
    left, wrong = (ids != 255).sum(), wrong.sum()
    assert wrong > 50
    spoiled = evaluate("spoiled")
    assert spoiled.metrics.matrix.sum() == counted - own + left
    assert spoiled.metrics.value("pixel_accuracy") == pytest.approx(
        1 - wrong / (counted - own + left)
    )
    accuracies = [image.pixel_accuracy for image in spoiled.images]
    assert accuracies == pytest.approx([1, 1 - wrong / left, 1])


def test_all_layers_are_the_test_nets_scores_scaled_to_full_size(tmp_path):
    weights = demo_weights(tmp_path, DEMO)
    predictor = Predictor(net_files(DEMO / "deploy.prototxt", weights), test=DEMO / "test.prototxt")
    plain = Predictor(net_files(DEMO / "deploy.prototxt", weights))
    photo = np.random.default_rng(5).integers(0, 256, (70, 90, 3)).astype(np.uint8)
    scores = predictor.scores([photo])
    count = len(scores)
    assert list(scores) == [f"score{k}" for k in range(1, count)] + ["score"] and count >= 2
    np.testing.assert_array_equal(scores["score"], plain.scores([photo])["score"])
    for k in range(1, count):
        small = predictor.engine.net.blobs[f"score{k}"].data[0]
        height, width = predictor.engine.input_size
        factors = (1, height / small.shape[1], width / small.shape[2])
        bilinear = ndimage.zoom(small, factors, order=1, grid_mode=False)  # corners aligned
        np.testing.assert_allclose(scores[f"score{k}"][0], bilinear, rtol=1e-4, atol=1e-5)
    assert np.abs(scores["score1"] - scores["score"]).max() > 1e-3  # they are different layers


# ------------------------------------------------------------------------------------- resuming


def test_resuming_parses_only_what_is_missing(colors, listed, tmp_path, monkeypatch):
    parsed = []
    original = Predictor.scores

    def counting(self, photos):
        parsed.extend(photo.shape[0] for photo in photos)
        return original(self, photos)

    monkeypatch.setattr(Predictor, "scores", counting)
    out = tmp_path / "out"

    def evaluate(weights=colors[1]):
        parsed.clear()
        return evaluate_list(Predictor(net_files(colors[0], weights)), listed, HORSE, out)

    first = evaluate()
    assert parsed == [24, 48, 72]
    (out / "predictions/photo1.png").unlink()
    second = evaluate()
    assert parsed == [48]
    assert (first.metrics.matrix == second.metrics.matrix).all()
    # A photo with another content is parsed again, however old it is; a copy of the same is not.
    photo = listed.parent / "images/photo2.png"
    content = photo.read_bytes()
    photo.unlink()
    photo.write_bytes(content)
    evaluate()
    assert parsed == []
    cv2.imwrite(str(photo), cv2.imread(str(photo))[::-1])
    os.utime(photo, (0, 0))
    evaluate()
    assert parsed == [72]
    # A label map that a power cut spoiled is made again.
    result = out / "predictions/photo0.png"
    result.write_bytes(result.read_bytes()[:-20])
    evaluate()
    assert parsed == [24]
    # Other weights: nothing of the old ones is kept.
    net = caffe.Net(str(colors[0]), caffe.TEST)
    net.copy_from(str(colors[1]))
    net.params["nearest"][1].data[0] += 1e9  # all background
    net.save(str(tmp_path / "other.caffemodel"))
    black = evaluate(tmp_path / "other.caffemodel")
    assert parsed == [24, 48, 72]
    assert black.metrics.matrix[:, 1:].sum() == 0


def test_foreign_files_are_never_deleted(colors, listed, tmp_path):
    mine = tmp_path / "out/predictions/mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(InputError, match="did not write, such as .*mine.png"):
        evaluate_list(Predictor(net_files(*colors)), listed, HORSE, tmp_path / "out")
    assert mine.read_bytes() == b"mine"


# ---------------------------------------------------------------------------------- the command


def test_command_compares_writes_and_sets_the_exit_code(colors, listed, tmp_path):
    arguments = ("evaluate", colors[0], "--weights", colors[1], "--list", listed, "--cpu")
    out = tmp_path / "out"
    far = lglstm(*arguments, "--output", out, "--expect", "horse.lg_lstm")
    assert far.exit_code == 1
    assert "outside ± 0.5: tail is 100.00, horse.lg_lstm has 42.06" in far.stderr
    assert "the paper's horse.lg_lstm: 227 images, selected by hand; no" in far.stdout
    near = lglstm(
        *arguments, "--output", out, "--expect", "horse.lg_lstm", "--tolerance", 58, "--json"
    )
    assert near.exit_code == 0, near.output
    contents = json.loads(near.stdout)
    assert contents == json.loads((out / "evaluation.json").read_text())
    assert contents["images"] == 3 and contents["row"] == "horse.lg_lstm"
    by_metric = {cell["metric"]: cell for cell in contents["table"]}
    assert by_metric["mean_iou"] == {
        "metric": "mean_iou", "paper": 68.73, "ours": 100, "difference": pytest.approx(31.27),
    }  # fmt: skip
    assert (
        Metrics(np.array(contents["metrics"]["confusion_matrix"]), HORSE.names).averages["mean_iou"]
        == 1
    )
    assert (out / "report.html").stat().st_size > 10_000


def test_label_maps_of_other_programs_are_scored_alike(colors, listed, tmp_path):
    out = tmp_path / "out"
    common = ("--list", listed, "--labels", "horse", "--json")
    ours = lglstm("evaluate", colors[0], "--weights", colors[1], "--output", out, *common)
    assert ours.exit_code == 0, ours.output
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for k in range(3):  # gray PNGs without a palette, as others write them
        cv2.imwrite(str(theirs / f"photo{k}.png"), read_label(out / f"predictions/photo{k}.png"))
    scored = lglstm("evaluate", "--predictions", theirs, "--output", tmp_path / "scored", *common)
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["metrics"] == json.loads(ours.stdout)["metrics"]


def test_a_net_that_says_one_class_everywhere_is_warned_of(listed, tmp_path):
    black = tmp_path / "black"
    for k, (height, width) in enumerate(((24, 40), (48, 80), (72, 120))):
        write_label(black / f"photo{k}.png", np.zeros((height, width), np.uint8), HORSE.palette)
    arguments = ("--list", listed, "--labels", "horse", "--output", tmp_path / "out")
    result = lglstm("evaluate", "--predictions", black, *arguments)
    assert result.exit_code == 0
    assert "warning: 100.0% of all pixels are predicted as background" in result.stderr
    assert "4 of the 5 classes were never predicted (head, body, leg, tail)" in result.stderr


def test_table_puts_results_below_their_rows(colors, listed, tmp_path):
    for row in ("horse.lg_lstm", "horse.vgg16", "cow.local4"):
        result = lglstm(
            "evaluate", colors[0], "--weights", colors[1], "--list", listed, "--labels", "horse",
            "--paper", row, "--output", tmp_path / "runs" / row,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
    printed = lglstm("table", "5", tmp_path / "runs")
    assert printed.exit_code == 0 and printed.stdout.count("  ours") >= 3
    blocks = json.loads(lglstm("table", "5", tmp_path / "runs", "--json").stdout)
    ours = {row["row"]: row["ours"] for block in blocks for row in block["rows"]}
    assert len(ours) == 12
    measured = {row for row, numbers in ours.items() if numbers}
    assert measured == {"horse.lg_lstm", "horse.vgg16", "cow.local4"}
    assert set(ours["cow.local4"].values()) == {100.0}
    assert "holds no evaluation.json" in error_of("table", "5", listed.parent)


# ------------------------------------------------------------------------------------ bad input


def test_weights_of_another_model(colors, listed, tmp_path):
    deploy, weights = colors
    start = ("--list", listed, "--output", tmp_path / "out", "--weights")
    other = tmp_path / "deploy.prototxt"
    other.write_text(deploy.read_text().replace("num_output: 5", "num_output: 4"))
    message = error_of("evaluate", other, *start, weights)
    assert "nearest is 5×3×1×1 and 5 there and 4×3×1×1 and 4 in the net" in message
    other.write_text(deploy.read_text().replace('"nearest"', '"renamed"'))
    message = error_of("evaluate", other, *start, weights)
    assert "none of its layers (nearest) has the name of a layer of this net (renamed)" in message

    whole = weights.read_bytes()
    for bad, fault in (
        (whole[:-7], "not a complete caffemodel"),
        (b"", "not a complete caffemodel (it is empty)"),
        (b"\xff", "not a complete caffemodel"),
    ):
        (tmp_path / "bad.caffemodel").write_bytes(bad)
        assert fault in error_of("evaluate", deploy, *start, tmp_path / "bad.caffemodel")
    net = caffe.Net(str(deploy), caffe.TEST)
    net.params["nearest"][0].data[2] = np.nan
    net.save(str(tmp_path / "nan.caffemodel"))
    message = error_of("evaluate", deploy, *start, tmp_path / "nan.caffemodel")
    assert "layer nearest holds NaN or infinity" in message
    assert not (tmp_path / "out").exists()


def test_weights_as_caffe_wrote_them_before_2014(colors, tmp_path):
    new = caffe.proto.caffe_pb2.NetParameter.FromString(colors[1].read_bytes())
    old = caffe.proto.caffe_pb2.NetParameter()
    for layer in new.layer:
        entry = old.layers.add(name=layer.name)
        for blob in layer.blobs:
            shape = [1] * (4 - len(blob.shape.dim)) + list(blob.shape.dim)
            sizes = dict(zip(("num", "channels", "height", "width"), shape, strict=True))
            entry.blobs.add(**sizes, data=blob.data)
    path = tmp_path / "old.caffemodel"
    path.write_bytes(old.SerializeToString())
    photo = COLORS[draw_label(np.random.default_rng(2), 24, 40)]
    ours, theirs = (
        Predictor(net_files(colors[0], weights)).predict([photo])[0].label_map
        for weights in (colors[1], path)
    )
    assert (ours == theirs).all() and ours.max() > 0


def test_layers_without_weights_are_named(tmp_path, listed):
    weights = demo_weights(tmp_path, DEMO)
    message = caffe.proto.caffe_pb2.NetParameter.FromString(weights.read_bytes())
    kept = [layer for layer in message.layer if not layer.name.startswith("lg_lstm")]
    del message.layer[:]
    message.layer.extend(kept)
    weights.write_bytes(message.SerializeToString())
    result = lglstm(
        "evaluate", "demo", "--weights", weights, "--list", listed, "--output", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    assert "does not hold the layers lg_lstm1, lg_lstm2" in result.stderr
    assert "score," not in result.stderr  # the bilinear up-sampling needs no weights


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("class", "labels/photo1.png: ids 7 (3840 pixels)"),
        ("size", "labels/photo1.png: is 80 × 24 pixels"),
        ("column", "line 2: has 1 entries instead of `image label`"),
        ("missing", "photo1.png does not exist"),
        ("twice", "lists photo0 2 times"),
    ],
)
def test_lists_that_do_not_fit(colors, listed, tmp_path, spoil, message):
    label = listed.parent / "labels/photo1.png"
    lines = listed.read_text().splitlines(keepends=True)
    if spoil == "class":
        write_label(label, np.full((48, 80), 7, np.uint8), HORSE.palette)
        message = message.replace("3840", "3,840")
    elif spoil == "size":
        write_label(label, np.zeros((24, 80), np.uint8), HORSE.palette)
    elif spoil == "missing":
        label.unlink()
    elif spoil == "column":
        lines[1] = "images/photo1.png\n"
    elif spoil == "twice":
        lines.append(lines[0])
    listed.write_text("".join(lines))
    arguments = ("evaluate", colors[0], "--weights", colors[1], "--list", listed)
    assert message in error_of(*arguments, "--output", tmp_path / "out")


def test_predictions_that_do_not_fit(listed, tmp_path):
    theirs = tmp_path / "theirs"
    arguments = ("evaluate", "--predictions", theirs, "--list", listed, "--labels", "horse")
    assert "is not a folder" in error_of(*arguments)
    write_label(theirs / "something.png", np.zeros((24, 40), np.uint8), HORSE.palette)
    assert "no label map belongs to an image of the list, such as photo0.png" in error_of(
        *arguments
    )
    write_label(theirs / "photo0.png", np.zeros((24, 40), np.uint8), HORSE.palette)
    assert "label maps of 2 of the 3 images are missing, first photo1.png" in error_of(*arguments)
    for k, shape in ((1, (40, 24)), (2, (72, 120))):
        write_label(theirs / f"photo{k}.png", np.zeros(shape, np.uint8), HORSE.palette)
    assert "the truth is 48×80 and the prediction 40×24" in error_of(*arguments)
    write_label(theirs / "photo1.png", np.full((48, 80), 9, np.uint8), HORSE.palette)
    assert "the prediction has class 9, but there are 5 classes" in error_of(*arguments)
    assert "the meaning of the labels" in error_of(*arguments[:-2])


def test_one_label_map_is_not_scored_twice(listed, tmp_path):
    data = listed.parent
    for folder in "ab":
        (data / "images" / folder).mkdir()
        shutil.copy(data / "images/photo0.png", data / "images" / folder / "1.png")
    lines = (f"images/{folder}/1.png labels/photo0.png\n" for folder in "ab")
    listed.write_text("".join(lines))
    theirs = tmp_path / "theirs"
    write_label(theirs / "1.png", np.zeros((24, 40), np.uint8), HORSE.palette)
    arguments = ("evaluate", "--predictions", theirs, "--list", listed, "--labels", "horse")
    said = error_of(*arguments)
    assert f"{theirs / '1.png'}: would be scored for both" in said
    assert "a/1.png and b/1.png" in said


def test_classes_of_ones_own_have_their_names_everywhere(colors, listed, tmp_path):
    names = ["ground", "leaf", "stem", "flower", "fruit"]
    labels = LabelSet.from_json({"name": "plants", "names": names}, "")
    (tmp_path / "plants.json").write_text(labels.to_text())
    arguments = ("evaluate", colors[0], "--weights", colors[1], "--list", listed, "--json")
    asked = json.loads(
        lglstm(*arguments, "-o", tmp_path / "a", "--labels", tmp_path / "plants.json").stdout
    )
    assert list(asked["metrics"]["iou"]) == names and asked["label_set"] == labels.to_json()
    assert asked["metrics"]["mean_iou"] == 1
    own = tmp_path / "own"
    own.mkdir()
    for file in colors:
        shutil.copy(file, own)
    (own / "labels.json").write_text(labels.to_text())  # as beside a generated model
    arguments = ("evaluate", own, "--weights", own / colors[1].name, "--list", listed, "--json")
    found = json.loads(lglstm(*arguments, "-o", tmp_path / "b").stdout)
    assert found["metrics"] == asked["metrics"] and found["label_set"] == asked["label_set"]


def test_classes_that_nobody_named_have_numbers(tmp_path):
    assert choose_labels(None, None, 4, None).names == ("class 0", "class 1", "class 2", "class 3")
    assert choose_labels(None, None, 18, None) is LABEL_SETS["atr"]
    beside = {"label_set": numbered(3).to_json() | {"name": "mine"}}
    (tmp_path / "dataset.json").write_text(json.dumps(beside))
    assert choose_labels(None, None, 18, tmp_path / "test.txt").name == "mine"
    assert choose_labels("lip", None, 20, tmp_path / "test.txt").names[10] == "jumpsuits"
    with pytest.raises(InputError, match="name them with --labels horse.* or --labels FILE.json"):
        choose_labels(None, None, None, None)


def test_the_list_of_a_model_is_the_one_of_its_test_net():
    model = find_model("cow_local2")
    assert nets.test_list(model) == model.root / "data/cow/test.txt"
    assert nets.test_list(dataclasses.replace(model, file=Path("nowhere/deploy.prototxt"))) is None


def test_options_that_do_not_fit(colors, listed, tmp_path):
    net = ("evaluate", colors[0], "--weights", colors[1], "--list", listed)
    assert "did you mean horse.lg_lstm" in error_of(*net, "--expect", "horse.lglstm")
    strangers = error_of(*net, "--paper", "atr.co_cnn", "--output", tmp_path / "out")
    assert "row atr.co_cnn has numbers for the classes bag, belt" in strangers
    assert not (tmp_path / "out").exists()  # said before anything is parsed
    assert "scores 5 classes, but the label set atr has 18" in error_of(*net, "--labels", "atr")
    for arguments, words in (
        ((), "give MODEL to run a net"),
        ((*net[1:], "--predictions", tmp_path), "leave them out"),
        ((*net[1:], "--paper", "horse.vgg16", "--expect", "horse.lg_lstm"), "different rows"),
        ((*net[1:], "--cpu", "--gpu", "0"), "--cpu and --gpu exclude each other"),
    ):
        wrong = lglstm("evaluate", *arguments)
        assert wrong.exit_code == 2 and words in wrong.stderr.splitlines()[-1], wrong.stderr
        assert "main evaluate [OPTIONS] [MODEL]" in wrong.stderr
    assert "did you mean horse" in error_of("evaluate", "hors", "--weights", colors[1])
    assert error_of(*net, "--gpu", "999").startswith("error: --gpu 999: ")
    assert "not a deploy net" in error_of("evaluate", DEMO / "test.prototxt", *net[2:])
    broken = tmp_path / "deploy.prototxt"
    broken.write_text("layer {")
    assert "deploy.prototxt: is not a Caffe NetParameter: " in error_of(
        "evaluate", broken, *net[2:]
    )
    broken.write_text(colors[0].read_text().replace("Convolution", "Convolutoin"))
    assert "has no layer of type Convolutoin" in error_of("evaluate", broken, *net[2:])
    with pytest.raises(InputError, match="has 0 score map"):
        net = nets.read_net(colors[0])
        nets.with_all_scores(net, net, colors[0])
