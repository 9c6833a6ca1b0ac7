"""Horse-Cow from VOC photos and PASCAL-Part: merged parts, crops, lists, and bad files."""

import shutil

import numpy as np
import pytest
import scipy.io
from data_help import (
    SHAPE,
    box_mask,
    horse,
    other,
    photo_bytes,
    save_label,
    save_mat5,
    save_mat73,
    voc,
)

from lglstm.common.errors import InputError
from lglstm.common.images import read_pair
from lglstm.data_prep.horse_cow import HorseCowOptions, data_set
from lglstm.data_prep.matfiles import load_mat, structs, text
from lglstm.data_prep.prepare import prepare
from lglstm.data_prep.sources import name_hash

BODY, LEG, IGNORE = 2, 3, 255


def prepared(tmp_path, source, options=None, **arguments):
    """Prepare a source with one photo; return examples by name, and the summary."""
    options = options or HorseCowOptions(smallest=1)
    summary = prepare(data_set(source, options, **arguments), tmp_path / "set", workers=1)
    found = {}
    for label in sorted((tmp_path / "set/labels").glob("*.png")):
        found[label.stem] = read_pair(tmp_path / f"set/images/{label.name}", label, 5)
    return found, summary


@pytest.mark.parametrize("save", [save_mat5, save_mat73])
def test_parts_are_merged_and_overlaps_decided_in_one_order(tmp_path, save):
    source = voc(tmp_path, {"a": [horse()]}, save)
    label = prepared(tmp_path, source, HorseCowOptions(context=None, smallest=1))[0]["a_1"][1]
    assert label.shape == SHAPE
    expected = np.zeros(SHAPE, np.uint8)
    expected[20:32, 15:40] = BODY  # torso
    expected[16:24, 36:43] = BODY  # neck
    expected[30:48, 34:38] = LEG  # upper leg, lower leg and hoof, over the torso
    expected[20:30, 10:17] = 4  # the tail, over the torso
    expected[10:20, 40:50] = 1  # the head, over the neck
    expected[8:12, 42:44] = 1  # an ear
    expected[10:20, 50] = IGNORE  # of the animal, but of no part
    assert (label == expected).all()


def test_the_neck_may_belong_to_the_head(tmp_path):
    source = voc(tmp_path, {"a": [horse()]})
    options = HorseCowOptions(neck="head", context=None, smallest=1)
    label = prepared(tmp_path, source, options)[0]["a_1"][1]
    assert (label[16:20, 37:40] == 1).all() and (label[20:24, 36:40] == 1).all()


def test_one_example_per_animal_with_the_others_unknown(tmp_path):
    second, cow = horse(left=45), {**horse(left=45), "class": "cow"}
    person = other("person", box_mask(SHAPE, 40, 5, 60, 30))
    source = voc(tmp_path, {"a": [horse(), second, person], "b": [cow], "c": [person]})
    found, summary = prepared(tmp_path, source, HorseCowOptions(context=None, smallest=1))
    assert sorted(found) == ["a_1", "a_2"]
    assert (found["a_1"][1][50:58, 6:20] == IGNORE).all()  # the person
    assert (found["a_1"][1][25, 60:70] == IGNORE).all()  # the other horse
    assert (found["a_2"][1][25, 60:70] == BODY).all()
    assert sum(summary["examples"].values()) == 2
    assert summary["label_set"]["name"] == "horse" and summary["published"] == {
        "train": 294,
        "test": 227,
    }


def test_others_as_background_and_cows(tmp_path):
    person = other("person", box_mask(SHAPE, 40, 5, 60, 30))
    cow = {**horse(), "class": "cow"}
    options = HorseCowOptions(animal="cow", others="background", context=None, smallest=1)
    label = prepared(tmp_path, voc(tmp_path, {"a": [person, cow]}), options)[0]["a_2"][1]
    assert not label[50:, :30].any()


def test_the_crop_is_the_box_and_a_stated_part_of_it_on_each_side(tmp_path):
    source = voc(tmp_path, {"a": [horse()]})
    uncropped = HorseCowOptions(context=None, smallest=1)
    whole = prepared(tmp_path / "w", voc(tmp_path / "v", {"a": [horse()]}), uncropped)[0]
    photo, label = prepared(tmp_path, source, HorseCowOptions(context=0.25, smallest=1))[0]["a_1"]
    # The animal's box is rows 8…48, columns 10…51: 10 more rows, 10 more columns (41 / 4).
    assert (label == whole["a_1"][1][0:58, 0:61]).all()
    assert (photo == whole["a_1"][0][0:58, 0:61]).all()


def test_small_animals_and_those_without_parts_are_counted_not_taken(tmp_path):
    bare = other("horse", box_mask(SHAPE, 0, 0, 9, 9))
    found, summary = prepared(
        tmp_path, voc(tmp_path, {"a": [horse(), bare]}), HorseCowOptions(smallest=45)
    )
    assert not found
    assert summary["counts"] == {
        "animals smaller than 45 pixels, left out": 1,
        "animals without part masks, left out": 1,
    }


def test_lists_name_photos_or_single_animals(tmp_path):
    source = voc(tmp_path, {"a": [horse(), horse(left=45)], "2008_01": [horse()]})
    (tmp_path / "train").write_text("a_2\n")
    (tmp_path / "test").write_text("2008_01  1\nmissing -1\n")  # VOC's lists per class
    lists = {"train": tmp_path / "train", "test": tmp_path / "test"}
    found, _summary = prepared(tmp_path, source, HorseCowOptions(smallest=500), lists=lists)
    assert sorted(found) == ["2008_01_1", "a_2"]  # lists are taken as they are, whatever the size
    assert (tmp_path / "set/train.txt").read_text() == "images/a_2.png labels/a_2.png\n"


def test_lists_with_unknown_or_repeated_names_are_refused(tmp_path):
    source = voc(tmp_path, {"a": [horse()]})
    (tmp_path / "train").write_text("x\na\ny_7\n")
    (tmp_path / "test").write_text("a\na\n")
    with pytest.raises(InputError, match=r"train: 2 of 3 names are not in .*first 'x'"):
        data_set(source, lists={"train": tmp_path / "train"})
    with pytest.raises(InputError, match="'a' is listed twice"):
        data_set(source, lists={"test": tmp_path / "test"})
    (tmp_path / "train").write_text("a_3\n")
    with pytest.raises(InputError, match=r"a\.mat: has 1 objects, so there is no 3"):
        prepare(data_set(source, lists={"train": tmp_path / "train"}), tmp_path / "set", workers=1)


def test_without_lists_the_split_depends_on_the_names_alone(tmp_path):
    names = [f"2008_{k:06d}" for k in range(40)]
    folder = tmp_path / "Annotations_Part"
    folder.mkdir()
    (tmp_path / "JPEGImages").mkdir()
    for name in names:
        (folder / f"{name}.mat").touch()
    splits = data_set(tmp_path).splits
    assert list(splits) == names
    assert splits == {n: "train" if name_hash(n) < 294 / 521 else "test" for n in names}
    assert 14 <= list(splits.values()).count("train") <= 30


@pytest.mark.parametrize("suffix", ["png", "mat"])
def test_merged_label_maps_are_read_too(tmp_path, suffix):
    label = np.zeros(SHAPE, np.uint8)
    label[20:40, 30:60] = 2
    label[0, 0] = 255
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "JPEGImages/a.jpg").write_bytes(photo_bytes(SHAPE))
    (tmp_path / "merged").mkdir()
    if suffix == "png":
        save_label(tmp_path / "merged/a.png", label)
    else:
        scipy.io.savemat(tmp_path / "merged/a.mat", {"labels": label.astype(float)})
    options = HorseCowOptions(context=None, smallest=1)
    found, _ = prepared(tmp_path, tmp_path, options, annotations=tmp_path / "merged")
    assert (found["a"][1] == label).all()


def bad(objects=None, **anno):
    return [{"imname": "a", "objects": objects if objects is not None else [horse()], **anno}]


BROKEN = {
    "no-anno": ({"other": [{"x": 1.0}]}, "holds neither PASCAL-Part's 'anno' nor one array of ids"),
    "no-objects": ({"anno": [{"imname": "a"}]}, r"has no field 'objects' \(found: imname\)"),
    "numeric": ({"anno": np.ones((2, 2))}, "'anno' is not a struct"),
    "text-mask": (
        {"anno": bad([{**horse(), "mask": "no"}])},
        "a mask is not a 2-D array",
    ),
    "sizes": (
        {"anno": bad([{**horse(), "mask": np.ones((5, 6))}])},
        "its masks differ in size",
    ),
    "part": (
        {"anno": bad([{**horse(), "parts": [{"part_name": "wing", "mask": np.ones(SHAPE)}]}])},
        "'wing' is not a part of a horse or cow",
    ),
    "photo": ({"anno": bad([horse((70, 90))])}, r"is 90 × 70 pixels, its photo 90 × 60"),
    "ids": ({"labels": np.full(SHAPE, 9.0)}, "has ids other than 0 to 4 and 255"),
}


@pytest.mark.parametrize("save", [save_mat5, save_mat73])
@pytest.mark.parametrize("case", BROKEN)
def test_other_contents_end_in_one_sentence(tmp_path, case, save):
    variables, message = BROKEN[case]
    source = voc(tmp_path, {"a": [horse()]})
    save(source / "VOC2010/Annotations_Part/a.mat", variables)
    with pytest.raises(InputError, match=message) as caught:
        prepared(tmp_path, source)
    assert str(source / "VOC2010/Annotations_Part/a.mat") in str(caught.value)


def test_incomplete_sources_are_named(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        data_set(tmp_path / "nowhere")
    with pytest.raises(InputError, match="has no folder 'JPEGImages' in it"):
        data_set(tmp_path)
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "Annotations_Part").mkdir()
    with pytest.raises(InputError, match=r"Annotations_Part: has no \.mat or \.png file"):
        data_set(tmp_path)
    source = voc(tmp_path / "v", {"a": [horse()]})
    (source / "VOC2010/JPEGImages/a.jpg").unlink()
    with pytest.raises(InputError, match="has no photo 'a.jpg'"):
        prepared(tmp_path, source)


def real_files(shared_data, tmp_path):
    """Six real files of PASCAL-Part with their photos, in the layout of the published set."""
    for folder, suffix in (("JPEGImages", ".jpg"), ("Annotations_Part", ".mat")):
        (tmp_path / "VOC2010" / folder).mkdir(parents=True)
        for path in sorted((shared_data / "pascal_part_mats").glob(f"*{suffix}")):
            shutil.copy(path, tmp_path / "VOC2010" / folder)
    return tmp_path / "VOC2010"


def test_real_files_hold_what_scipy_finds_in_them(shared_data, tmp_path):
    files = sorted((real_files(shared_data, tmp_path) / "Annotations_Part").iterdir())
    seen = set()
    for path in files:
        ours = structs(load_mat(path)["anno"], "anno", path)[0]["objects"]
        theirs = np.atleast_1d(scipy.io.loadmat(path, squeeze_me=True)["anno"]["objects"].item())
        assert len(ours) == len(theirs) > 0
        for thing, expected in zip(ours, theirs, strict=True):
            assert text(thing, "class", path) == expected["class"]
            np.testing.assert_array_equal(thing["mask"], expected["mask"])
            parts = structs(thing["parts"], "parts", path)
            expected_parts = np.atleast_1d(expected["parts"])
            assert len(parts) == len(expected_parts)
            for part, expected_part in zip(parts, expected_parts, strict=True):
                assert text(part, "part_name", path) == expected_part["part_name"]
                np.testing.assert_array_equal(part["mask"], expected_part["mask"])
            seen.add(text(thing, "class", path))
    assert len(files) == 6
    assert seen == {
        "aeroplane", "bird", "bottle", "cat", "chair", "horse", "person", "tvmonitor",
    }  # fmt: skip


def test_the_one_horse_of_the_real_files(shared_data, tmp_path):
    source = real_files(shared_data, tmp_path)
    found, summary = prepared(tmp_path, source, HorseCowOptions(context=None))
    assert list(found) == ["2010_005243_11"] and sum(summary["examples"].values()) == 1
    photo, label = found["2010_005243_11"]
    assert photo.shape == (333, 500, 3) and label.shape == (333, 500)
    path = source / "Annotations_Part/2010_005243.mat"
    horse_in_file = load_mat(path)["anno"][0]["objects"][10]
    whole = horse_in_file["mask"] > 0
    named = {text(part, "part_name", path): part["mask"] > 0 for part in horse_in_file["parts"]}
    assert "tail" not in named  # of this horse it is hidden
    assert (label[named["head"]] == 1).all() and (label[named["torso"]] != 0).all()
    assert set(np.unique(label[whole])) == {1, BODY, LEG, IGNORE}
    assert set(np.unique(label[~whole])) <= {0, IGNORE}  # background, or one of ten other objects
    cows = data_set(source, HorseCowOptions(animal="cow"))
    assert sum(prepare(cows, tmp_path / "cows", workers=1)["examples"].values()) == 0
