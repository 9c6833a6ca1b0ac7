"""Label sets and contact sheets: ids, colors, mirror swaps, and pictures that show them."""

import numpy as np
import pytest
from PIL import Image

from lglstm.common.errors import InputError
from lglstm.common.labels import IGNORE, LABEL_SETS, label_set
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


def test_a_sheet_that_is_no_picture_is_refused(tmp_path):
    rows = [SheetRow([np.zeros((4, 5, 3), np.uint8)])]
    with pytest.raises(InputError, match=r"sheet\.xyz: is not the name of a picture"):
        write_sheet(tmp_path / "sheet.xyz", rows, ("image",), label_set("horse"))
    assert not list(tmp_path.iterdir())
