"""From photo to net and back, on non-square sizes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lglstm.common import preprocessing


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_blob_is_bgr_minus_mean_in_channels_first_order():
    blue = np.zeros((4, 6, 3), np.uint8)
    blue[:, :, 0] = 200
    blob = preprocessing.to_blob(blue, (4, 6))
    assert blob.shape == (3, 4, 6) and blob.dtype == np.float32 and blob.flags.c_contiguous
    np.testing.assert_allclose(blob[:, 2, 3], [200 - 104.008, -116.669, -122.675], rtol=1e-6)


def test_picture_undoes_blob():
    image = photo(7, 5)
    np.testing.assert_array_equal(
        preprocessing.to_picture(preprocessing.to_blob(image, (7, 5))), image
    )


@pytest.mark.parametrize("size", [(9, 21), (40, 60), (12, 90)])
def test_resizing_keeps_the_picture_in_place(size):
    """A ramp along each axis stays that ramp: no shift, whatever grows or shrinks."""
    ramp = np.zeros((24, 36, 3), np.float32)
    ramp[..., 0] = (np.arange(24)[:, None] + 0.5) / 24
    ramp[..., 1] = (np.arange(36) + 0.5) / 36
    resized = preprocessing.resize_photo(ramp, size)
    for axis, length in enumerate(size):
        expected = (np.arange(length) + 0.5) / length
        middle = np.moveaxis(resized[..., axis], axis, 0)[2:-2, 3]
        # Whole numbers of pixels do not always make up an area: half a source pixel at most.
        np.testing.assert_allclose(middle, expected[2:-2], atol=0.5 / 24)


def test_a_shrinking_photo_loses_no_pixel():
    dotted = np.zeros((32, 32, 3), np.uint8)
    dotted[::8, ::8] = 255
    small = preprocessing.resize_photo(dotted, (4, 4))
    assert small.min() > 0


@pytest.mark.parametrize("stride", [1, 3, 8])
def test_label_blob_is_every_nth_pixel_of_the_nearest_resize(stride):
    label = np.random.default_rng(1).integers(0, 18, (23, 41), dtype=np.uint8)
    full = cv2.resize(label, (25, 17), interpolation=cv2.INTER_NEAREST_EXACT)
    blob = preprocessing.to_label_blob(label, (17, 25), stride)
    np.testing.assert_array_equal(blob, full[None, ::stride, ::stride])
    assert blob.dtype == np.float32


def test_label_map_is_the_best_of_the_resized_scores():
    scores = np.random.default_rng(2).normal(size=(6, 9, 13)).astype(np.float32)
    resized = cv2.resize(scores.transpose(1, 2, 0), (50, 31), interpolation=cv2.INTER_LINEAR)
    ids = preprocessing.to_label_map(scores, (31, 50))
    np.testing.assert_array_equal(ids, resized.argmax(2))
    assert ids.dtype == np.uint8


def test_label_map_undoes_the_stretch():
    """One-hot scores of a stretched label map give back the label map, but for its edges."""
    label = np.zeros((40, 64), np.uint8)
    label[10:30, 8:32], label[5:20, 40:60] = 1, 2
    stretched = preprocessing.to_label_blob(label, (48, 48))[0]
    scores = np.stack([stretched == k for k in range(3)])
    back = preprocessing.to_label_map(scores, label.shape)
    assert (back == label).mean() > 0.97
    assert [np.sum(back == k) for k in (1, 2)] == pytest.approx([480, 300], rel=0.06)


def test_a_tie_goes_to_the_lower_id():
    assert not preprocessing.to_label_map(np.zeros((4, 3, 3)), (5, 5)).any()
