"""Label sets and contact sheets: ids, colors, mirror swaps, and pictures that show them."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from lglstm.common import sheets
from lglstm.common.colors import distinct_colors
from lglstm.common.errors import InputError
from lglstm.common.labels import (
    IGNORE,
    LABEL_SETS,
    RESERVED_COLORS,
    LabelSet,
    label_set,
    numbered,
)
from lglstm.common.sheets import SheetRow, contact_sheet, write_sheet


@pytest.mark.parametrize("name", LABEL_SETS)
def test_colors_tell_all_ids_apart(name):
    labels = label_set(name)
    used = np.vstack([labels.palette[: labels.num_classes], labels.palette[IGNORE]]).astype(int)
    distance = np.abs(used[:, None] - used[None]).max(2)
    assert distance[~np.eye(len(used), dtype=bool)].min() >= 20
    assert labels.palette.shape == (256, 3) and labels.palette.dtype == np.uint8


def test_a_mirror_swaps_what_has_a_left_and_a_right_each_once():
    for labels in LABEL_SETS.values():
        ids = [a for pair in labels.mirror_swaps for a in pair]
        swapped = set(ids)
        assert len(ids) == len(swapped)
        sided = {k for k, n in enumerate(labels.names) if n.startswith(("left-", "right-"))}
        assert swapped == sided
        for left, right in labels.mirror_swaps:
            assert labels.names[left].replace("left", "right") == labels.names[right]


def test_ids_of_the_published_sets():
    assert label_set("horse").names == ("background", "head", "body", "leg", "tail")
    assert label_set("atr").id_of("scarf") == 17 and label_set("atr").num_classes == 18
    assert label_set("fashionista56").num_classes == 56
    assert label_set("fashionista56").names[-2:] == ("hair", "skin")


def test_unknown_names_say_what_there_is():
    with pytest.raises(InputError, match="no label set 'hors'; did you mean horse"):
        label_set("hors")
    with pytest.raises(InputError, match="no class 'wing'; choose one of background, head"):
        label_set("cow").id_of("wing")


@pytest.mark.parametrize("name", LABEL_SETS)
def test_a_label_set_survives_json(name):
    labels = label_set(name)
    data = json.loads(json.dumps(labels.to_json()))
    assert LabelSet.from_json(data, "a.json") == labels
    assert data["ignored"] == 255 and len(data["colors"]) == labels.num_classes


@pytest.mark.parametrize("count", [2, 3, 60, 255])
def test_a_label_set_of_names_alone_gets_colors(count):
    data = {"name": "mine", "names": [f"class {k}" for k in range(count)]}
    labels = LabelSet.from_json(data, "mine.json")
    assert labels.num_classes == count and labels.mirror_swaps == ()
    assert labels == LabelSet.from_json(data, "elsewhere.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names is missing|name is missing"),
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ('{"name": "a", "name": "b"}', "it gives name twice"),
        ("[1]", "it must be a JSON object such as"),
        ('{"label_set": "hors"}', "is not a label set"),
        (b"\xff\xfe\xff", "is not text in UTF-8"),
        (b"\x80", "is not text in UTF-8"),
        ("x" * 1_000_001, "has more than 1,000,000 bytes"),
    ],
)
def test_a_file_that_is_no_label_set_is_named(tmp_path, text, words):
    path = tmp_path / "mine.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}: .*({words})"):
        label_set(str(path))


def test_a_label_set_is_read_from_its_file_and_from_a_data_set(tmp_path):
    labels = LabelSet.from_json(TWO | {"colors": [[0, 0, 0], [1, 2, 3]]}, "")
    path = tmp_path / "mine.json"
    path.write_text(labels.to_text())
    assert label_set(str(path)) == labels
    path.write_bytes(labels.to_text().encode("utf-16"))
    assert label_set(str(path)) == labels
    path.write_text(json.dumps({"set": "pairs", "label_set": labels.to_json()}))
    assert label_set(str(path)) == labels
    path.write_text(json.dumps({"set": "atr", "label_set": "atr"}))  # of an older version
    assert label_set(str(path)) == LABEL_SETS["atr"]
    with pytest.raises(InputError, match="there is no such file"):
        label_set(str(tmp_path / "missing.json"))
    with pytest.raises(InputError, match="there is no such file"):
        label_set(str(tmp_path) + "/.json")


def test_a_net_that_nobody_described_has_numbered_classes():
    assert numbered(3).names == ("class 0", "class 1", "class 2")
    assert numbered(3).colors == distinct_colors.__wrapped__(3, RESERVED_COLORS)
    with pytest.raises(InputError, match="256 classes are more than the 255"):
        numbered(256)


TWO = {"name": "mine", "names": ["ground", "leaf"]}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "is not a label set; write an object such as"),
        (["ground", "leaf"], "is not a label set"),
        ({"name": "mine"}, "names is missing"),
        ({"names": ["a", "b"]}, "name is missing"),
        (TWO | {"colours": []}, "unknown key colours; did you mean colors"),
        (TWO | {"name": ""}, 'name is ""; it must be 1 to 64 printable'),
        (TWO | {"name": 3}, "name is 3"),
        (TWO | {"names": ["ground"]}, "must be a list of 2 to 255 names"),
        (TWO | {"names": [str(k) for k in range(256)]}, "must be a list of 2 to 255 names"),
        (TWO | {"names": ["ground", "ground"]}, 'class "ground" is there twice'),
        (TWO | {"names": ["ground", " leaf"]}, "without spaces around them"),
        (TWO | {"names": ["ground", "le\naf"]}, "1 to 64 printable characters"),
        (TWO | {"names": ["ground", "\ud800"]}, "1 to 64 printable characters"),
        (TWO | {"names": ["ground", "x" * 65]}, "1 to 64 printable characters"),
        (TWO | {"names": ["ground", 7]}, "1 to 64 printable characters"),
        (TWO | {"colors": [[0, 0, 0]]}, "has 1 colors for 2 classes"),
        (TWO | {"colors": [[0, 0, 0], [0, 0, 256]]}, "whole numbers from 0 to 255"),
        (TWO | {"colors": [[0, 0, 0], [0, 0, 1.0]]}, "whole numbers from 0 to 255"),
        (TWO | {"colors": [[0, 0, 0], [0, 0, True]]}, "whole numbers from 0 to 255"),
        (TWO | {"colors": [[0, 0, 0], [9, 9]]}, "a list of .red, green, blue."),
        (TWO | {"colors": [[9, 9, 9], [9, 9, 9]]}, "the ids 0 and 1 have the same color"),
        (TWO | {"colors": [[0, 0, 0], [255, 255, 255]]}, "of 'leaf' is kept for id 255"),
        (TWO | {"colors": [[255, 0, 255], [0, 0, 0]]}, "of 'ground' is kept for unknown ids"),
        (TWO | {"mirror_swaps": [[0, 2]]}, "mirror_swaps has the id 2; the classes are 0 to 1"),
        (TWO | {"mirror_swaps": [[0, 0]]}, "mirror_swaps has the id 0 twice"),
        (TWO | {"mirror_swaps": [[0, 1], [1, 0]]}, "mirror_swaps has the id 1 twice"),
        (TWO | {"mirror_swaps": [[0, -1]]}, "mirror_swaps is .*must be a list of .id, id."),
        (TWO | {"ignored": 0}, "ignored is 0; it must be 255"),
    ],
)
def test_a_label_set_that_does_not_fit_together_names_its_file(data, words):
    with pytest.raises(InputError, match=rf"^mine\.json: .*{words}") as error:
        LabelSet.from_json(data, "mine.json")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_sheet_shows_photos_and_labels_in_their_colors(tmp_path):
    labels = label_set("horse")
    photo = np.zeros((30, 20, 3), np.uint8)
    photo[:] = (200, 10, 10)  # BGR: a blue photo
    label = np.full((30, 20), 3, np.uint8)
    rows = [SheetRow([photo, label], f"example {k}") for k in range(3)]
    sheet = np.asarray(contact_sheet(rows, ("image", "truth"), labels, columns=2, height=60))
    flat = sheet.reshape(-1, 3)
    assert (flat == (10, 10, 200)).all(1).sum() == 3 * 60 * 40
    assert (flat == labels.palette[3]).all(1).sum() > 3 * 60 * 40  # and once in the legend

    path = tmp_path / "new" / "sheet.png"
    write_sheet(path, rows, ("image", "truth"), labels, title="three examples")
    assert Image.open(path).mode == "RGB"
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]


def test_a_panorama_becomes_lower_instead_of_a_sheet_of_gigabytes():
    labels = label_set("horse")
    wide = SheetRow([np.zeros((1, 30_000, 3), np.uint8), np.zeros((1, 30_000), np.uint8)])
    sheet = contact_sheet([wide], ("image", "truth"), labels, height=100)
    assert sheet.width < 2 * 8 * 100 + 100


def test_a_long_caption_keeps_its_start_and_its_end():
    shorter = sheets._shorten("fashionista_0088", 100, sheets.SMALL)
    assert shorter.startswith("fash") and "..." in shorter and shorter.endswith("0088")
    assert sheets._shorten("0088", 100, sheets.SMALL) == "0088"
    assert sheets._shorten("0088", 5, sheets.SMALL) == "..."


def test_a_sheet_that_is_no_picture_is_refused(tmp_path):
    rows = [SheetRow([np.zeros((4, 5, 3), np.uint8)])]
    with pytest.raises(InputError, match=r"sheet\.xyz: is not the name of a picture"):
        write_sheet(tmp_path / "sheet.xyz", rows, ("image",), label_set("horse"))
    assert not list(tmp_path.iterdir())
