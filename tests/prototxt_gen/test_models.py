"""The generated nets in Caffe: every model, reduced to few channels, loads, runs and trains."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
from models_help import layers, load, tiny, tiny_solver

from lglstm.caffe_files.costs import measure
from lglstm.caffe_files.prototxt import read_prototxt
from lglstm.prototxt_gen.conv_baseline import (
    conv_baseline,
    convolution_weights,
    lg_lstm_weights,
)
from lglstm.prototxt_gen.files import stale, texts
from lglstm.prototxt_gen.index import index
from lglstm.prototxt_gen.nets import build
from lglstm.prototxt_gen.options import CoCNN, Demo, LargeFOV
from lglstm.prototxt_gen.registry import MODELS, find
from lglstm.prototxt_gen.summary import PAPER_GPU_BYTES, own_weights, summarize_nets


def options_of(name):
    return MODELS[name].options


def net(name, form="train", **changes):
    return build(dataclasses.replace(options_of(name), **changes), name, form)


def shapes_in_caffe(loaded):
    return {
        name: tuple(blob.data.shape) for name, blob in loaded.blobs.items() if "_split_" not in name
    }


# ------------------------------------------------------------------------- every model in Caffe


@pytest.mark.parametrize("name", MODELS)
def test_model_trains_tests_and_deploys(name, tmp_path):
    options = tiny(options_of(name), tmp_path)
    solver = tiny_solver(options, tmp_path)
    train, test = solver.net, solver.test_nets[0]
    before = {key: blobs[0].data.copy() for key, blobs in train.params.items()}
    for _ in range(2):
        solver.step(1)
        losses = {key: float(train.blobs[key].data) for key in train.outputs}
        assert len([key for key in losses if key[4:].isdigit()]) == options.predictions
        assert all(np.isfinite(value) and value > 0 for value in losses.values()), losses
    learned = set(own_weights(measure(build(options, name, "train"))))
    fixed = {key for key in train.params if key.startswith("up")} | {"train_data"}
    for key, value in before.items():
        moved = not np.array_equal(value, train.params[key][0].data)
        assert moved == (key in learned - fixed) or key == "train_data", key

    assert 0 <= float(test.forward()["accuracy"]) <= 1
    deploy = load(options, "deploy", tmp_path)
    solver.net.save(str(tmp_path / "trained.caffemodel"))
    deploy.copy_from(str(tmp_path / "trained.caffemodel"))
    deploy.blobs["data"].reshape(2, 3, *options.input_size)
    deploy.blobs["data"].data[...] = np.random.default_rng(0).normal(
        0, 50, (2, 3, *options.input_size)
    )
    score = deploy.forward()["score"]
    assert score.shape == (2, options.num_classes, *options.input_size)
    assert np.isfinite(score).all() and np.ptp(score) > 0
    same_parameters(train, test, deploy, options)


def same_parameters(train, test, deploy, options):
    """Deployed nets lack the classifiers of earlier layers and add a fixed up-sampling."""

    def shapes(loaded):
        return {key: [blob.data.shape for blob in value] for key, value in loaded.params.items()}

    trained, tested, deployed = shapes(train), shapes(test), shapes(deploy)
    earlier = {
        key
        for key in trained
        for i in range(1, options.predictions)
        if key.startswith((f"score{i}_", f"raw_score{i}_"))
    }
    del trained["train_data"]
    assert tested == trained
    deployed.pop("score", None)
    assert deployed == {key: value for key, value in trained.items() if key not in earlier}


@pytest.mark.parametrize("form", ["train", "test", "deploy"])
@pytest.mark.parametrize("name", ["horse", "horse_extra_conv", "atr", "atr_co_cnn", "demo"])
def test_arithmetic_of_shapes_and_weights_is_caffes(name, form, tmp_path):
    options = tiny(options_of(name), tmp_path)
    loaded = load(options, form, tmp_path)
    measured = measure(
        read_prototxt(tmp_path / f"{form}.prototxt", "TRAIN" if form == "train" else "TEST")[0]
    )
    tops = {
        top: tuple(shape)
        for layer in measured
        for top, shape in zip(layer.message.top, layer.tops, strict=True)
    }
    assert tops == shapes_in_caffe(loaded)
    params = {
        layer.name: [tuple(shape) for shape in layer.blobs] for layer in measured if layer.blobs
    }
    assert params == {k: [tuple(b.data.shape) for b in v] for k, v in loaded.params.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_full_size_model_trains_without_nan(name, tmp_path):
    if name != "horse" and not os.environ.get("LGLSTM_FULL_SIZE"):
        pytest.skip("takes minutes; LGLSTM_FULL_SIZE=1 trains every model at full size")
    small = tiny(options_of(name), tmp_path)
    lists = ("train_list", "test_list", "train_images", "test_images", "weights")
    options = dataclasses.replace(options_of(name), **{key: getattr(small, key) for key in lists})
    solver = tiny_solver(options, tmp_path)
    solver.step(2)
    assert all(np.isfinite(solver.net.blobs[key].data).all() for key in solver.net.outputs)


# --------------------------------------------------------------------------- sizes and numbers


def map_sizes(name, *blobs):
    tops = {
        top: shape[2:]
        for layer in measure(net(name))
        for top, shape in zip(layer.message.top, layer.tops, strict=True)
    }
    return [tops[blob] for blob in blobs]


def test_map_sizes_of_the_paper():
    sizes = map_sizes("horse", "pool1", "pool2", "pool3", "fc6", "fc7", "lg_lstm5_local", "score5")
    assert sizes == [(161, 161), (81, 81)] + [(41, 41)] * 5
    blobs = ("conv1_2", "conv2_2", "conv3_2", "conv4_2", "sum3", "sum2", "sum1", "score5")
    encoder = [(150, 100), (75, 50), (37, 25), (18, 12)]
    assert map_sizes("atr", *blobs) == encoder + encoder[2::-1] + [(150, 100)]


def test_totals_match_the_arithmetic_of_the_paper():
    groups = summary("horse").as_dict()["groups"]
    assert groups["LG-LSTM"]["weights"] == 2 * 256 * 1152  # W^s and W^e: 4d rows, (9 + 9)d columns
    assert groups["transition"]["weights"] == 9 * 3 * 64 * 1024
    assert groups["prediction"]["weights"] == 5 * (5 * 1152 + 5)
    positions = 41 * 41
    once = 2 * 256 * 9 * 64  # the global half of the products, once per image
    expected = 5 * (positions * 2 * 256 * 9 * 64 + once)
    assert groups["LG-LSTM"]["multiply_adds_per_image"] == expected
    vgg_convolutions = 14_714_688  # of VGG-16, all thirteen with biases
    fc = 1024 * (512 * 9 + 1) + 1024 * (1024 + 1)
    assert groups["backbone"]["weights"] == vgg_convolutions + fc


def summary(name):
    return summarize_nets(name, net(name), net(name, "test"))


@pytest.mark.parametrize("name", MODELS)
def test_training_fits_the_papers_card(name):
    measured = summary(name)
    assert 0 < measured.activation_bytes < measured.gpu_bytes < PAPER_GPU_BYTES


def test_solver_numbers():
    from lglstm.prototxt_gen.solvers import solver

    horse = solver(options_of("horse"), "horse")
    assert (horse.max_iter, horse.stepsize, horse.gamma) == (8820, 5880, pytest.approx(0.1))
    assert horse.base_lr == pytest.approx(0.001) and horse.momentum == pytest.approx(0.9)
    assert horse.weight_decay == pytest.approx(0.0005)
    assert horse.weights == ["data/init/vgg16_largefov.caffemodel"]
    atr = solver(options_of("atr"), "atr")
    assert atr.max_iter == 90 * 6000 // 2 and not atr.weights
    for name, model in MODELS.items():
        written = solver(model.options, name)
        test_data = layers(net(name, "test"))["test_data"].python_param.param_str
        assert f'"batch_size": {model.options.test_batch}' in test_data
        assert written.test_iter[0] * model.options.test_batch == model.options.test_images
        if not name.startswith("demo"):
            assert layers(net(name))["train_data"].python_param.param_str.count('"batch_size": 2,')
    tests = [(n, options_of(n).test_images) for n in ("horse", "atr", "fashionista")]
    assert tests == [("horse", 227), ("atr", 1000), ("fashionista", 229)]


def needs_msra(model: str, layer: str) -> bool:
    """Whether it belongs to a deep stack that starts new, in a model that is to learn."""
    deep = isinstance(options_of(model), CoCNN) or layer.startswith("extra")
    return deep and not model.endswith("paper_init")


@pytest.mark.parametrize("name", MODELS)
def test_learning_rates_and_fillers_are_the_papers(name):
    """All but the fillers of deep stacks of new convolutions, which would not train.

    And but the rate of the classifiers of the two nets that were trained so.
    """
    options = options_of(name)
    assert options.score_lr_mult == (10 if name in ("fashionista_241", "fashionista_321") else 1)
    pretrained = isinstance(options, LargeFOV)
    for layer in net(name).layer:
        rates = [(param.lr_mult, param.decay_mult) for param in layer.param]
        fc_is_new = pretrained and not options.fc_pretrained and layer.name in ("fc6", "fc7")
        old = pretrained and layer.name.startswith(("conv", "fc")) and not fc_is_new
        rate = options.score_lr_mult if layer.name.startswith("score") else 0.1 if old else 1
        if layer.type in ("Convolution", "InnerProduct"):
            assert rates[0] == (pytest.approx(rate), 1)
            assert rates[1:] in ([], [(pytest.approx(2 * rate), 0)])
            if not fc_is_new and not name.startswith("demo"):
                convolution = layer.type == "Convolution"
                param = layer.convolution_param if convolution else layer.inner_product_param
                filler = param.weight_filler
                if needs_msra(name, layer.name):
                    assert filler.type == "msra"
                else:
                    assert (filler.type, filler.std) == ("gaussian", pytest.approx(0.001))
        elif layer.type in ("LGLSTM", "LGLSTMTransition"):
            assert set(rates) == {(1, 1)}
            filler = layer.lg_lstm_param.weight_filler
            limit = 0.2 if name.startswith("demo") else 0.1
            bounds = (pytest.approx(-limit), pytest.approx(limit))
            assert filler.type == "uniform" and (filler.min, filler.max) == bounds
        else:
            assert all(rate == (0, 0) for rate in rates)


# ------------------------------------------------------------------------- the parts of the nets


def test_classifier_equals_a_convolution_over_the_tiled_input_states(tmp_path):
    options = tiny(options_of("horse"), tmp_path)
    loaded = load(options, "train", tmp_path)
    rng = np.random.default_rng(5)
    for key in ("score2_local", "score2_global"):
        for blob in loaded.params[key]:
            blob.data[...] = rng.normal(size=blob.data.shape)
    loaded.forward()
    local, global_ = (loaded.blobs[f"lg_lstm2_{kind}"].data for kind in ("local", "global"))
    tiled = np.broadcast_to(global_.reshape(2, -1, 1, 1), (2, global_[0].size, *local.shape[2:]))
    states = np.concatenate([tiled, local], axis=1)  # H of Eq. (3)
    weight = np.concatenate(
        [loaded.params["score2_global"][0].data, loaded.params["score2_local"][0].data[:, :, 0, 0]],
        axis=1,
    )
    expected = np.einsum("ck,bkhw->bchw", weight.astype(float), states)
    expected += loaded.params["score2_local"][1].data[:, None, None]
    assert not np.allclose(global_[0], global_[1])  # a mix-up of images would show
    np.testing.assert_allclose(loaded.blobs["score2"].data, expected, rtol=1e-5, atol=1e-5)


def test_deployed_scores_are_interpolated_with_corners_aligned(tmp_path):
    options = tiny(options_of("horse"), tmp_path)
    train = load(options, "train", tmp_path)
    train.save(str(tmp_path / "no_upsampling.caffemodel"))
    deploy = load(options, "deploy", tmp_path)
    deploy.copy_from(str(tmp_path / "no_upsampling.caffemodel"))
    small = np.random.default_rng(2).normal(size=deploy.blobs["score5"].data.shape)
    deploy.blobs["score5"].data[...] = small
    deploy.forward(start="score")
    height, width = options.input_size
    rows = np.array([np.interp(np.arange(width) / 8, np.arange(12), row) for row in small[0, 1]])
    whole = np.array([np.interp(np.arange(height) / 8, np.arange(9), column) for column in rows.T])
    np.testing.assert_allclose(deploy.blobs["score"].data[0, 1], whole.T, rtol=1e-4, atol=1e-5)


def test_co_cnn_upsampling_undoes_the_geometry_of_its_pooling(tmp_path):
    loaded = load(tiny(options_of("atr_co_cnn"), tmp_path), "deploy", tmp_path)
    coarse = np.random.default_rng(1).normal(size=loaded.blobs["conv4_3"].data.shape)
    loaded.blobs["conv4_3"].data[...] = coarse
    loaded.forward(start="up3_whole", end="up3")
    fine = loaded.blobs["up3"].data
    assert fine.shape[2:] == loaded.blobs["conv3_2"].data.shape[2:] == (7, 5)
    np.testing.assert_allclose(fine[:, :, 1::2, 1::2], coarse, rtol=1e-6)
    middle = (coarse[:, :, :, :-1] + coarse[:, :, :, 1:]) / 2
    np.testing.assert_allclose(fine[:, :, 1::2, 2:-1:2], middle, rtol=1e-5, atol=1e-6)


def test_python_engine_computes_the_same_net(tmp_path):
    scores = {}
    for engine in ("caffe", "python"):
        folder = tmp_path / engine
        folder.mkdir()
        options = dataclasses.replace(tiny(options_of("demo"), folder), engine=engine)
        loaded = load(options, "test", folder)
        if engine == "caffe":
            loaded.save(str(tmp_path / "demo.caffemodel"))
        loaded.copy_from(str(tmp_path / "demo.caffemodel"))
        loaded.forward()
        scores[engine] = loaded.blobs["score4"].data.copy()
    kinds = {layer.type for layer in build(options, "demo", "train").layer}
    assert "LGLSTM" not in kinds and "LGLSTMTransition" not in kinds
    assert np.ptp(scores["caffe"]) > 0
    np.testing.assert_allclose(scores["python"], scores["caffe"], rtol=1e-4, atol=1e-5)


def test_layers_share_their_weights_unless_told_otherwise(tmp_path):
    options = tiny(options_of("horse"), tmp_path)
    shared = load(options, "train", tmp_path)
    assert shared.params["lg_lstm5"][0].data is not None
    shared.params["lg_lstm1"][0].data[...] = 7
    assert (shared.params["lg_lstm5"][0].data == 7).all()
    own = load(dataclasses.replace(options, share_layers=False), "train", tmp_path)
    own.params["lg_lstm1"][0].data[...] = 7
    assert not (own.params["lg_lstm5"][0].data == 7).any()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("atr", {"sum_label_scores": True, "upsampling": "learned", "lg_lstm_after": "decoder1"}),
        ("atr", {"image_label": False, "image_skip": False, "input_scale": 0.01}),
        ("horse", {"lg_lstm_after": "pool5"}),
        ("horse", {"lg_lstm_after": "fc6", "pool5a": False, "engine": "python"}),
        ("horse_extra_conv", {"extra_conv_losses": True}),
    ],
)
def test_other_choices_train_too(name, changes, tmp_path):
    options = dataclasses.replace(tiny(options_of(name), tmp_path), **changes)
    solver = tiny_solver(options, tmp_path)
    solver.step(2)
    assert all(np.isfinite(solver.net.blobs[key].data).all() for key in solver.net.outputs)
    deploy = load(options, "deploy", tmp_path)
    assert deploy.forward()["score"].shape == (1, options.num_classes, *options.input_size)
    same_parameters(solver.net, solver.test_nets[0], deploy, options)


def test_biases_and_distinct_spatial_weights(tmp_path):
    changes = {"bias_term": True, "share_spatial": False, "neighbors": 4, "global_grid": 0}
    options = dataclasses.replace(tiny(options_of("horse"), tmp_path), **changes)
    solver = tiny_solver(options, tmp_path)
    solver.step(1)
    shapes = [blob.data.shape for blob in solver.net.params["lg_lstm3"]]
    assert shapes == [(4, 16, 20), (4, 16), (16, 20), (16,)]
    assert [blob.data.shape for blob in solver.net.params["transition"]] == [(5, 12, 32), (5, 12)]


def test_baseline_of_convolutions_has_as_many_weights():
    for options in (Demo(), Demo(hidden=24, lg_lstm_layers=3), Demo(widths=(8, 16), hidden=9)):
        baseline = conv_baseline(options)
        ours = learned_weights(options)
        assert abs(learned_weights(baseline) - ours) < 0.05 * ours
        # The closed forms that choose the baseline are the arithmetic of the nets.
        filters = baseline.extra_conv_filters
        difference = lg_lstm_weights(options) - convolution_weights(options, filters)
        assert difference == ours - learned_weights(baseline)


def learned_weights(options):
    return sum(own_weights(measure(build(options, "x", "train"))).values())


# ------------------------------------------------------------------- what variants differ in


def without(net_proto, *prefixes):
    kept = layers(net_proto).items()
    return {name: layer for name, layer in kept if not name.startswith(prefixes)}


HEAD = ("transition", "lg_lstm", "score", "loss", "silence", "extra", "relu_extra")


@pytest.mark.parametrize("animal", ["horse", "cow"])
@pytest.mark.parametrize("variant", ["vgg16", "extra_conv", "local2", "local4", "wo_global"])
def test_table_5_variants_differ_in_what_they_name_alone(animal, variant):
    full, other = net(animal), net(f"{animal}_{variant}")
    assert without(full, *HEAD) == without(other, *HEAD)
    theirs = {field.name for field in dataclasses.fields(LargeFOV)}
    a, b = options_of(animal), options_of(f"{animal}_{variant}")
    changed = {key for key in theirs if getattr(a, key) != getattr(b, key)}
    named = {
        "vgg16": {"lg_lstm_layers"},
        "extra_conv": {"lg_lstm_layers", "extra_convs"},
        "local2": {"neighbors"},
        "local4": {"neighbors"},
        "wo_global": {"global_grid"},
    }
    assert changed == named[variant]


def test_fewer_neighbors_change_one_number_per_layer():
    full, local = layers(net("horse")), layers(net("horse_local2"))
    for layer in local.values():
        if layer.HasField("lg_lstm_param"):
            assert layer.lg_lstm_param.neighbors == 2
            layer.lg_lstm_param.neighbors = 8
    assert local == full


def test_without_global_no_layer_reads_or_makes_global_cells():
    blobs = {blob for layer in net("horse_wo_global").layer for blob in [*layer.bottom, *layer.top]}
    assert not any("global" in blob for blob in blobs)
    assert any("global" in blob for layer in net("horse").layer for blob in layer.top)


def test_extra_convolutions_are_five_of_576_filters_of_3x3():
    extra = [m for m in measure(net("horse_extra_conv")) if m.name.startswith("extra")]
    assert [m.blobs[0] for m in extra] == [(576, 1024, 3, 3)] + [(576, 576, 3, 3)] * 4
    assert [m.tops[0] for m in extra] == [(2, 576, 41, 41)] * 5


def test_horse_cow_images_are_augmented_in_training_only():
    train = layers(net("cow"))["train_data"].python_param.param_str
    test = layers(net("cow", "test"))["test_data"].python_param.param_str
    for key in ("mirror", "box_jitter", "crop", "scale", "rotation", "color"):
        assert f'"{key}"' in train and f'"{key}"' not in test
    atr = layers(net("atr"))["train_data"].python_param.param_str
    assert '"mirror_swaps": [[9, 10], [12, 13], [14, 15]]' in atr and '"crop"' not in atr


# ------------------------------------------------------------------------------ image labels


def test_image_labels_of_a_batch():
    from lglstm.layers.image_labels import image_labels

    label = np.full((3, 1, 2, 3), 255.0)
    label[0, 0] = [[0, 2, 2], [2, 255, 0]]
    label[1, 0, 1, 1] = 3
    target = image_labels(label, 4)
    np.testing.assert_array_equal(target, [[0.5, 0, 0.5, 0], [0, 0, 0, 1], [0, 0, 0, 0]])


@pytest.mark.parametrize("bad", [4, -1, 0.5])
def test_image_labels_refuses_unknown_ids(bad):
    from lglstm.common.errors import InputError
    from lglstm.layers.image_labels import image_labels

    with pytest.raises(InputError, match="allowed are 0 to 3 and 255"):
        image_labels(np.full((1, 1, 2, 2), bad), 4)


def test_image_label_branch_learns_from_the_label_map(tmp_path):
    options = tiny(options_of("atr"), tmp_path)
    loaded = load(options, "train", tmp_path)
    loaded.forward()
    label, target = loaded.blobs["label"].data, loaded.blobs["label_target"].data
    for ids, row in zip(label, target, strict=True):
        shown = np.unique(ids[ids != 255]).astype(int)
        assert set(np.flatnonzero(row)) == set(shown) and row.sum() == pytest.approx(1)
    difference = loaded.blobs["label_probabilities"].data - target
    expected = (difference**2).sum() / (2 * len(target))
    assert float(loaded.blobs["loss_labels"].data) == pytest.approx(expected, rel=1e-5)
    assert loaded.blob_loss_weights["loss_labels"] == pytest.approx(0.3)


def test_all_five_losses_have_weight_one(tmp_path):
    loaded = load(tiny(options_of("horse"), tmp_path), "train", tmp_path)
    weights = [loaded.blob_loss_weights[f"loss{i}"] for i in range(1, 6)]
    assert weights == [1] * 5


# ---------------------------------------------------------------------------- committed files


def test_committed_models_are_what_would_be_generated():
    from lglstm.cli.models import origin
    from lglstm.prototxt_gen.files import index_text

    expected = index_text()
    for name, model in MODELS.items():
        expected |= texts(model.options, name, origin(name))
    assert stale(expected) == []
    assert all(f"`{name}`" in index() for name in MODELS)


def test_every_model_of_the_table_exists():
    animals = ("", "_vgg16", "_extra_conv", "_local2", "_local4", "_wo_global")
    names = {f"{animal}{suffix}" for animal in ("horse", "cow") for suffix in animals}
    names |= {"atr", "atr_more", "fashionista", "atr_co_cnn", "fashionista_co_cnn", "demo"}
    names |= {"fashionista_largefov", "fashionista_largefov_vgg16"}
    assert names <= set(MODELS) and find("atr").options == options_of("atr")
    assert find("demo").options == Demo() and isinstance(options_of("fashionista"), CoCNN)
