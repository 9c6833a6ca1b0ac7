"""The drawn animals: the same for the same seed, alike in every part, and exact once prepared."""

import time

import numpy as np
import pytest
import scipy.io

from lglstm.common.errors import InputError
from lglstm.common.images import read_pair
from lglstm.data_prep import horse_cow
from lglstm.data_prep.prepare import prepare
from lglstm.data_prep.synthetic import draw_animal, draw_example, make_synthetic


def test_an_example_depends_on_its_seed_and_number_alone():
    image, label = draw_example(65, seed=3, index=5)
    again = draw_example(65, seed=3, index=5)
    assert (image == again[0]).all() and (label == again[1]).all()
    assert image.shape == (65, 65, 3) and image.dtype == label.dtype == np.uint8
    assert (image != draw_example(65, seed=4, index=5)[0]).any()
    assert (image != draw_example(65, seed=3, index=6)[0]).any()


def test_every_animal_has_all_parts_and_stands_apart_from_the_border():
    for index in range(40):
        label = draw_example(65, seed=1, index=index)[1]
        assert set(np.unique(label)) == {0, 1, 2, 3, 4}
        border = np.concatenate([label[0], label[-1], label[:, 0], label[:, -1]])
        assert not border.any()


def test_masks_are_disjoint_and_named_as_in_pascal_part():
    animal = draw_animal(65, seed=2, index=0)
    assert np.sum(list(animal.parts.values()), axis=0).max() == 1
    assert {"head", "neck", "torso", "tail", "lfuleg", "rblleg"} <= animal.parts.keys()
    assert set(animal.parts) - {"neck"} <= horse_cow.PARTS.keys()


def test_color_does_not_tell_the_parts_apart():
    """Within an image, parts differ far less from each other than from the ground."""
    between_parts, to_ground = [], []
    for index in range(30):
        image, label = draw_example(97, seed=5, index=index)
        means = np.array([image[label == k].mean(0) for k in range(5)])
        between_parts.append(np.linalg.norm(means[1:] - means[1:].mean(0), axis=1).mean())
        to_ground.append(np.linalg.norm(means[0] - means[2]))
    assert np.mean(between_parts) < 0.15 * np.mean(to_ground)


def test_limbs_are_strokes_of_one_width():
    """A leg, a tail and a neck are as wide as each other: area over length says nothing."""
    widths = {"leg": [], "tail": [], "neck": []}
    for index in range(30):
        animal = draw_animal(129, seed=6, index=index)
        for name, mask in animal.parts.items():
            kind = "leg" if name.endswith("lleg") else name
            if kind in widths and mask.sum() > 40:
                rows, columns = np.nonzero(mask)
                spread = np.linalg.svd(np.stack([rows - rows.mean(), columns - columns.mean()]))[1]
                widths[kind].append(spread[1] / np.sqrt(len(rows)))
    means = [np.mean(values) for values in widths.values()]
    assert max(means) < 1.45 * min(means)


def test_heads_are_on_the_left_as_often_as_on_the_right():
    ahead = []
    for index in range(60):
        label = draw_example(49, seed=7, index=index)[1]
        ahead.append(np.nonzero(label == 1)[1].mean() > np.nonzero(label == 4)[1].mean())
    assert 18 <= sum(ahead) <= 42


@pytest.mark.parametrize("context", [None, 0.2])
def test_the_horse_cow_path_gives_back_exactly_the_drawn_parts(tmp_path, context):
    make_synthetic(tmp_path / "drawn", 3, 2, size=49, seed=8)
    lists = {split: tmp_path / f"drawn/ImageSets/{split}.txt" for split in ("train", "test")}
    options = horse_cow.HorseCowOptions(context=context)
    summary = prepare(
        horse_cow.data_set(tmp_path / "drawn", options, lists=lists), tmp_path / "set", workers=1
    )
    assert summary["examples"] == {"train": 3, "test": 2}
    lines = (tmp_path / "set/train.txt").read_text() + (tmp_path / "set/test.txt").read_text()
    for index, line in enumerate(lines.splitlines()):
        photo, label = read_pair(*(tmp_path / "set" / name for name in line.split()), num_classes=5)
        image, truth = draw_example(49, seed=8, index=index)
        window = _window(truth, context) if context is not None else ...
        assert (photo == image[window]).all() and (label == truth[window]).all()


def _window(truth, context):
    slices = []
    for axis in (1, 0):
        used = np.flatnonzero(truth.any(axis))
        more = round(context * (used[-1] + 1 - used[0]))
        slices.append(slice(max(0, used[0] - more), used[-1] + 1 + more))
    return tuple(slices)


def test_the_layout_is_that_of_pascal_part(tmp_path):
    make_synthetic(tmp_path, 1, 1, size=41, animal_class="cow")
    anno = scipy.io.loadmat(tmp_path / "Annotations_Part/synthetic_00001.mat", squeeze_me=True)[
        "anno"
    ]
    thing = anno["objects"].item()
    assert (
        anno["imname"] == "synthetic_00001" and thing["class"] == "cow" and thing["class_ind"] == 10
    )
    assert thing["parts"].item().dtype.names == ("part_name", "mask")


def test_files_do_not_depend_on_the_time(tmp_path, monkeypatch):
    def drawn(name, moment):
        monkeypatch.setattr(time, "asctime", lambda *given: moment)
        make_synthetic(tmp_path / name, 1, 1, size=33)
        return [path.read_bytes() for path in sorted((tmp_path / name).glob("**/*.mat"))]

    assert drawn("first", "Sat Nov 28 20:00:00 2026") == drawn("second", "Sun Nov 29 21:11:11 2026")


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(InputError, match="at least one of each"):
        make_synthetic(tmp_path, 0, 5)
    with pytest.raises(InputError, match="size 20: a quadruped needs at least 33 pixels"):
        make_synthetic(tmp_path, 1, 1, size=20)
