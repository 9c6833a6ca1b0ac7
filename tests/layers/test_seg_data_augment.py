"""Random changes keep photo and label map aligned, invent no id and swap left and right."""

from __future__ import annotations

from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
from seg_help import AUGMENTATION

from lglstm.common.labels import IGNORE, label_set
from lglstm.layers.seg_augment import augment, crop, cut, jitter, mirror, object_box
from lglstm.layers.seg_options import HORSE_COW_AUGMENTATION, Augmentation

STEP = 40
"""Gray levels between two ids in a painted photo."""

OUTSIDE = (IGNORE, IGNORE, IGNORE)
"""As mean, so that what comes from outside is painted like its label."""

ALL = Augmentation(**{key: AUGMENTATION[key] for key in AUGMENTATION if key != "color"})
SINGLE = {
    key: replace(Augmentation(), **{key: value})
    for key, value in asdict(ALL).items()
    if key != "mirror_swaps" and value != getattr(Augmentation(), key)
}


def example(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A photo in which every pixel shows its own id, and the label map: large blobs of 0 … 4."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((60, 90), np.uint8)
    for id_ in (1, 2, 3, 4):
        top, left = rng.integers(8, 35, 2)
        ids[top : top + 15, left : left + 30] = id_
    ids[:, -4:] = IGNORE
    return painted(ids), ids


def painted(ids: np.ndarray) -> np.ndarray:
    levels = np.where(ids == IGNORE, IGNORE, ids * STEP).astype(np.uint8)
    return np.repeat(levels[:, :, None], 3, 2)


def inside_areas(ids: np.ndarray) -> np.ndarray:
    """Pixels whose neighbors all have the same id: interpolation cannot show there."""
    same = cv2.erode(ids, np.ones((5, 5))) == cv2.dilate(ids, np.ones((5, 5)))
    same[[0, -1]] = same[:, [0, -1]] = False  # their neighbors are cut off
    return same


@pytest.mark.parametrize("ranges", [*SINGLE.values(), ALL], ids=[*SINGLE, "all"])
def test_photo_and_label_stay_aligned(ranges):
    plain = replace(ranges, mirror_swaps=())
    changed = 0
    for seed in range(40):
        photo, label = example(seed)
        moved, ids = augment(photo, label, plain, np.random.default_rng(seed), IGNORE, OUTSIDE)
        assert moved.shape[:2] == ids.shape and ids.dtype == np.uint8
        areas = inside_areas(ids)
        assert areas.mean() > 0.4
        np.testing.assert_array_equal(np.rint(moved)[areas], painted(ids)[areas])
        assert set(np.unique(ids)) <= set(np.unique(label))
        changed += ids.shape != label.shape or not np.array_equal(ids, label)
    assert changed >= 10


def test_what_comes_from_outside_is_mean_and_ignored():
    photo, label = np.full((20, 30, 3), 200, np.uint8), np.ones((20, 30), np.uint8)
    moved, ids = cut(photo, label, (0, 0, 20, 30), zoom=0.5, mean=(10, 20, 30.5))
    assert ids[0, 0] == IGNORE and ids[10, 15] == 1
    np.testing.assert_array_equal(moved[0, 0], np.float32([10, 20, 30.5]))
    np.testing.assert_array_equal(moved[10, 15], [200, 200, 200])
    assert 0.2 < (ids == 1).mean() < 0.3
    larger = cut(photo, label, (0, 0, 20, 30), zoom=2)[1]
    assert (larger == 1).all()
    # A box in the middle is turned with what lies around it, not with blanks.
    assert (cut(photo, label, (6, 10, 12, 18), angle=45)[1] == 1).all()


@pytest.mark.parametrize("angle", [90, 180, -90])
def test_rotation_is_counter_clockwise_about_the_center(angle):
    label = np.random.default_rng(0).integers(0, 5, (21, 21), dtype=np.uint8)
    photo, ids = cut(painted(label), label, (0, 0, 21, 21), angle=angle)
    np.testing.assert_array_equal(ids, np.rot90(label, angle // 90))
    np.testing.assert_allclose(photo, painted(ids), atol=1e-3)


def test_mirror_swaps_and_twice_is_the_identity():
    swaps = label_set("atr").mirror_swaps
    label = np.arange(18, dtype=np.uint8).reshape(3, 6)
    photo = painted(label)
    flipped, ids = mirror(photo, label, swaps)
    expected = label[:, ::-1].tolist()
    pairs = {9: 10, 10: 9, 12: 13, 13: 12, 14: 15, 15: 14}
    assert ids.tolist() == [[pairs.get(id_, id_) for id_ in row] for row in expected]
    np.testing.assert_array_equal(flipped, photo[:, ::-1])
    for one, back in zip((photo, label), mirror(flipped, ids, swaps), strict=True):
        np.testing.assert_array_equal(one, back)


def test_mirror_comes_half_of_the_time_and_swaps():
    photo, label = example(0)
    ranges = Augmentation(mirror=True, mirror_swaps=((1, 2),))
    flipped = 0
    for seed in range(200):
        moved, ids = augment(photo, label, ranges, np.random.default_rng(seed))
        if np.array_equal(moved, photo):
            np.testing.assert_array_equal(ids, label)
        else:
            flipped += 1
            np.testing.assert_array_equal(ids == 2, (label == 1)[:, ::-1])
            np.testing.assert_array_equal(ids == 3, (label == 3)[:, ::-1])
    assert 70 < flipped < 130


def test_jitter_keeps_the_object_whole():
    _, label = example(3)
    shown = np.sum((label > 0) & (label != IGNORE))
    boxes = [jitter(label, (0, 1), np.random.default_rng(seed), IGNORE) for seed in range(100)]
    for top, left, bottom, right in boxes:
        ids = label[top:bottom, left:right]
        assert np.sum((ids > 0) & (ids != IGNORE)) == shown
    assert len(set(boxes)) > 50
    assert jitter(label, (1, 1), np.random.default_rng(0), IGNORE) == tuple(object_box(label))
    assert jitter(label * 0, (1, 1), np.random.default_rng(0), IGNORE) == (0, 0, 60, 90)


def test_crop_keeps_its_part_of_the_box():
    boxes = [crop((10, 20, 50, 100), (0.5, 0.9), np.random.default_rng(s)) for s in range(200)]
    top, left, bottom, right = np.array(boxes).T
    assert top.min() >= 10 and left.min() >= 20 and bottom.max() <= 50 and right.max() <= 100
    assert 20 <= (bottom - top).min() < 24 and 33 < (bottom - top).max() <= 36
    assert 40 <= (right - left).min() < 45 and 68 < (right - left).max() <= 72
    assert crop((3, 4, 4, 5), (0.1, 0.1), np.random.default_rng(0)) == (3, 4, 4, 5)


def test_color_scales_each_channel_and_leaves_labels():
    photo, label = np.full((6, 8, 3), 100, np.uint8), example(0)[1][:6, :8]
    ranges = Augmentation(color=(0.5, 3))
    seen = []
    for seed in range(50):
        moved, ids = augment(photo, label, ranges, np.random.default_rng(seed))
        np.testing.assert_array_equal(ids, label)
        assert moved.min() == moved.min((0, 1)).min() and np.ptp(moved, axis=(0, 1)).max() == 0
        seen.append(moved[0, 0])
    assert np.min(seen) >= 50 and np.max(seen) == 255
    assert np.std(seen, axis=1).min() > 0


def test_switching_one_change_off_leaves_the_others():
    photo, label = example(5)
    chosen = Augmentation(**HORSE_COW_AUGMENTATION)
    plain = replace(chosen, color=(1, 1), mirror=False)
    for seed in range(20):
        ids = augment(photo, label, chosen, np.random.default_rng(seed))[1]
        same = augment(photo, label, plain, np.random.default_rng(seed))[1]
        assert np.array_equal(ids, same) or np.array_equal(ids, same[:, ::-1])
