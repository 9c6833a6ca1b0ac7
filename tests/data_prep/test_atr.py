"""ATR: pairs, splits and what is wrong with an archive."""

from collections import Counter

import numpy as np
import pytest
from data_help import photo_bytes, save_label

from lglstm.common.errors import InputError
from lglstm.common.images import read_pair
from lglstm.data_prep.atr import PREFIXES, data_set, split
from lglstm.data_prep.prepare import prepare

SHAPE = (24, 16)
NAMES = ("fash_1", "2500_10", "2500_2", "4565_7", "997_1", "Multi_3", "dataset10k_5")


def archive(root, names=NAMES):
    """Write a small `humanparsing` folder; the last photo is gray, as some of the set are."""
    for folder in ("JPEGImages", "SegmentationClassAug"):
        (root / "humanparsing" / folder).mkdir(parents=True)
    for k, name in enumerate(names):
        mode = "L" if name.startswith("dataset10k") else "RGB"
        photo = root / f"humanparsing/JPEGImages/{name}.jpg"
        photo.write_bytes(photo_bytes(SHAPE, seed=k, mode=mode))
        label = np.full(SHAPE, k, np.uint8)
        save_label(root / f"humanparsing/SegmentationClassAug/{name}.png", label, "atr")
    return root


def test_pairs_are_kept_as_they_are(tmp_path):
    source = archive(tmp_path)
    summary = prepare(data_set(source, more=True), tmp_path / "set", workers=1)
    assert sum(summary["examples"].values()) == len(NAMES)
    for k, name in enumerate(NAMES):
        photo, label = read_pair(
            tmp_path / f"set/images/{name}.jpg", tmp_path / f"set/labels/{name}.png", 18
        )
        assert photo.shape == (*SHAPE, 3) and (label == k).all()
        original = source / f"humanparsing/JPEGImages/{name}.jpg"
        assert (tmp_path / f"set/images/{name}.jpg").read_bytes() == original.read_bytes()
    assert "images/dataset10k_5.jpg" in (tmp_path / "set/train.txt").read_text()
    assert "1 pairs 'fash_' in the source (published: 685)" in summary["notes"]


def test_the_split_of_the_whole_archive_has_the_papers_sizes():
    names = [f"{prefix}_{k}" for prefix, count in PREFIXES.items() for k in range(count)]
    parts = split(names, more=False)
    assert Counter(parts.values()) == {"train": 6000, "val": 700, "test": 1000}
    assert {part for name, part in parts.items() if name.startswith("fash_")} == {"test"}
    assert not any(name.startswith("dataset10k_") for name in parts)
    assert parts == split(names[::-1], more=False)
    more = split(names, more=True)
    assert Counter(more.values()) == {"train": 16003, "val": 700, "test": 1000}
    assert parts.items() <= more.items()


def test_a_name_keeps_its_part_when_others_go():
    names = [f"2500_{k}" for k in range(2000)]
    parts, fewer = split(names, False), split(names[:1900], False)
    moved = [name for name in fewer if fewer[name] != parts[name]]
    assert len(moved) < 60


def test_lists_decide_when_given(tmp_path):
    source = archive(tmp_path)
    lists = {}
    for part, names in {"train": "2500_10\n2500_2", "test": "fash_1.jpg"}.items():
        lists[part] = tmp_path / part
        lists[part].write_text(names)
    assert data_set(source, lists=lists).splits == {
        "2500_10": "train",
        "2500_2": "train",
        "fash_1": "test",
    }
    lists["train"].write_text("2500_10\r\n2500_2\r\n", "utf-8-sig")
    lists["test"].write_text("/JPEGImages/fash_1.jpg /SegmentationClassAug/fash_1.png\n", "utf-16")
    assert data_set(source, lists=lists).splits == dict(
        zip(["2500_10", "2500_2", "fash_1"], ["train", "train", "test"], strict=True)
    )
    lists["test"].write_text("nobody_1\n")
    with pytest.raises(
        InputError, match="1 of 1 names are not in .*SegmentationClassAug.*nobody_1"
    ):
        data_set(source, lists=lists)


BROKEN = {
    "cut short": (lambda p, _: p.write_bytes(p.read_bytes()[:-300]), r"2500_2\.jpg.*cut short"),
    "gone": (lambda p, _: p.unlink(), "has no photo '2500_2.jpg'"),
    "other size": (
        lambda _, m: save_label(m, np.zeros((16, 24)), "atr"),
        r"2500_2\.png: is 24 × 16 pixels, its photo .* is 16 × 24",
    ),
    "colors": (lambda _, m: m.write_bytes(photo_bytes(SHAPE, "PNG")), "holds colors"),
    "ids": (lambda _, m: save_label(m, np.full(SHAPE, 40), "atr"), "outside the 18 classes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_bad_pair_stops_or_is_left_out_with_a_report(tmp_path, case):
    spoil, message = BROKEN[case]
    source = archive(tmp_path)
    folder = source / "humanparsing"
    spoil(folder / "JPEGImages/2500_2.jpg", folder / "SegmentationClassAug/2500_2.png")
    with pytest.raises(InputError, match=message):
        prepare(data_set(source), tmp_path / "set", workers=1)
    summary = prepare(data_set(source), tmp_path / "set", workers=1, skip_bad=True)
    assert summary["skipped"] == 1 and sum(summary["examples"].values()) == 5
    assert (tmp_path / "set/skipped.txt").read_text().startswith("2500_2\t")
