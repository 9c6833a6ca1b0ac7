"""ATR: pairs, splits and what is wrong with an archive."""

import itertools
from collections import Counter

import cv2
import numpy as np
import pytest
from data_help import photo_bytes, save_label

from lglstm.common.errors import InputError
from lglstm.common.images import read_pair
from lglstm.data_prep.atr import LEFT_OUT, PREFIXES, data_set, split
from lglstm.data_prep.matfiles import stream_structs
from lglstm.data_prep.prepare import prepare
from lglstm.data_prep.same_photo import SAME, is_one_of, thumbnail
from lglstm.data_prep.sources import read_splits

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


def test_public_lists_are_taken_as_they_are(shared_data, tmp_path):
    """A later project's: 6,703 + 1,000 names, as the paper's 6,000 + 700 and 1,000 would be."""
    lists = {part: shared_data / f"atr_ids/{part}_id.txt" for part in ("train", "test")}
    splits = read_splits(lists, lambda name: True, tmp_path)
    assert Counter(splits.values()) == {"train": 6703, "test": 1000}
    assert {part for name, part in splits.items() if name.startswith("fash_")} == {"train"}
    for change in (
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", ".jpg\n"),
        lambda text: text.replace("\n", ".png\r\n"),
    ):
        changed = {part: tmp_path / part for part in lists}
        for part, path in lists.items():
            changed[part].write_text(change(path.read_text()), newline="")
        assert read_splits(changed, lambda name: True, tmp_path) == splits


def fashionista(root, photos):
    """A prepared set with these photos, BGR, as its test part."""
    lines = []
    for k, photo in enumerate(photos):
        (root / "images").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / f"images/{k}.png"), photo)
        save_label(root / f"labels/{k}.png", np.zeros(photo.shape[:2]), "atr")
        lines.append(f"images/{k}.png labels/{k}.png\n")
    (root / "test.txt").write_text("".join(lines))
    return root


def test_test_photos_of_another_set_are_not_trained_on_whatever_their_names(tmp_path):
    names = ("997_1", "2500_10", "2500_2", "dataset10k_5")
    source = archive(tmp_path, names)
    path = source / "humanparsing/JPEGImages"
    smooth = [
        cv2.GaussianBlur(cv2.imread(str(path / f"{n}.jpg")), (0, 0), 2) * 2
        for n in ("2500_10", "2500_2")
    ]
    for name, photo in zip(("2500_10", "2500_2"), smooth, strict=True):
        cv2.imwrite(str(path / f"{name}.jpg"), photo)
    held_out = fashionista(
        tmp_path / "fashionista", [cv2.resize(photo, (50, 70)) for photo in smooth]
    )
    lists = {"train": tmp_path / "train", "val": tmp_path / "val", "test": tmp_path / "test"}
    for part, listed in zip(lists, ("997_1\n2500_10", "dataset10k_5", "2500_2"), strict=True):
        lists[part].write_text(listed)
    described = data_set(source, lists=lists, without=held_out)
    summary = prepare(described, tmp_path / "set", workers=1)
    assert summary["examples"] == {"train": 1, "val": 1, "test": 1}
    assert summary["counts"] == {LEFT_OUT: 1}
    assert "997_1" in (tmp_path / "set/train.txt").read_text()
    with pytest.raises(InputError, match="with other options"):
        prepare(data_set(source, lists=lists), tmp_path / "set", workers=1)
    with pytest.raises(InputError, match=r"nowhere/test\.txt: no such list"):
        data_set(source, without=tmp_path / "nowhere")


def test_lists_that_train_on_fashionista_are_told_of_it(tmp_path):
    source = archive(tmp_path)
    lists = {"train": tmp_path / "train", "test": tmp_path / "test"}
    lists["train"].write_text("fash_1\n2500_10\n")
    lists["test"].write_text("2500_2\n")
    assert any(
        "1 fash_ photos are not in test" in note for note in data_set(source, lists=lists).notes
    )
    assert not any("not in test" in note for note in data_set(source).notes)


COPIES = {
    "JPEG of quality 10": lambda photo: jpeg(photo, 10),
    "a quarter of the size": lambda photo: jpeg(cv2.resize(photo, None, fx=0.25, fy=0.25), 80),
    "twice the size": lambda photo: jpeg(cv2.resize(photo, None, fx=2, fy=2), 50),
    "other proportions": lambda photo: jpeg(cv2.resize(photo, (300, 400)), 70),
    "without a percent of each side": lambda photo: jpeg(photo[6:-6, 4:-4], 80),
}


def jpeg(photo, quality):
    encoded = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)


@pytest.mark.slow
def test_copies_of_real_photos_are_told_from_all_others(shared_data):
    records = stream_structs(shared_data / "fashionista/fashionista_v0.2.mat", "truths")
    photos = [
        cv2.imdecode(np.frombuffer(bytes(record["image"]), np.uint8), cv2.IMREAD_COLOR)
        for record in itertools.islice(records, 0, None, 3)
    ]
    known = np.stack([thumbnail(photo) for photo in photos])
    alike = known @ known.T
    assert len(photos) == 229 and alike[np.triu_indices(229, 1)].max() < SAME - 0.02
    for name, copy in COPIES.items():
        for k in range(0, 229, 20):
            found = np.flatnonzero(known @ thumbnail(copy(photos[k])) >= SAME)
            assert found.tolist() == [k], f"{name} of photo {3 * k + 1}"
    assert not is_one_of(np.full((60, 40, 3), 200, np.uint8), known)


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
