"""Fashionista: labels by hand-made poses, the published file, and files that are not it."""

import io
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from data_help import photo_bytes, save_mat5, save_mat73
from PIL import Image

from lglstm.common.errors import InputError
from lglstm.common.images import read_pair
from lglstm.common.labels import label_set
from lglstm.data_prep import fashionista
from lglstm.data_prep.fashionista import GROUPS, POSE, data_set
from lglstm.data_prep.prepare import prepare

ATR = label_set("atr")
NAMES = label_set("fashionista56").names
SHAPE = (120, 80)

POINTS = {
    "head": (40, 4), "neck": (40, 24),
    "right_shoulder": (30, 26), "right_elbow": (22, 42), "right_hand": (16, 58),
    "left_shoulder": (50, 26), "left_elbow": (58, 42), "left_hand": (64, 58),
    "right_hip": (35, 60), "right_knee": (33, 84), "right_ankle": (32, 106),
    "left_hip": (45, 60), "left_knee": (47, 84), "left_ankle": (48, 106),
}  # fmt: skip
"""A person who faces the camera: their right is at the left of the picture."""


def sample(patches, points=POINTS, shape=SHAPE, **changes):
    """Return an element of `truths`, a super-pixel per patch (name, top, left, bottom, right)."""
    superpixels = np.ones(shape, np.uint16)
    for k, (_, top, left, bottom, right) in enumerate(patches):
        superpixels[top:bottom, left:right] = k + 2
    buffer = io.BytesIO()
    Image.fromarray(superpixels).save(buffer, "PNG")
    labels = [1] + [NAMES.index(name) + 1 for name, *_ in patches]
    annotation = {
        "superpixel_map": np.frombuffer(buffer.getvalue(), np.uint8)[:, None],
        "superpixel_labels": np.array(labels, np.uint8)[:, None],
        "labels": list(NAMES),
        "marginals": np.empty((0, 0)),
    }
    record = {
        "index": 1.0,
        "url": "",
        "image": np.frombuffer(photo_bytes(shape), np.uint8)[:, None],
        "pose": [{"point": np.array([points[name] for name in POSE], float)}],
        "annotation": [annotation | changes.pop("annotation", {})],
        "id": 1.0,
    }
    return record | changes


def mat(path, samples, test=(1,), save=save_mat5):
    save(path, {"truths": samples, "predictions": np.empty((0, 0)), "test_index": np.array([test])})
    return path


def label_of(tmp_path, record, labels=18):
    summary = prepare(
        data_set(mat(tmp_path / "f.mat", [record]), labels), tmp_path / "set", workers=1
    )
    assert summary["examples"] == {"test": 1}
    return read_pair(*(tmp_path / "set" / n for n in fashionista_files(1)))[1]


def fashionista_files(number):
    return f"images/fashionista_{number:04d}.jpg", f"labels/fashionista_{number:04d}.png"


SEEN = [
    # What the super-pixel is called, where it is, and the class that it must become.
    ("skin", 8, 36, 18, 44, "face"),
    ("skin", 34, 22, 40, 28, "right-arm"),
    ("skin", 34, 54, 40, 60, "left-arm"),
    ("skin", 62, 10, 66, 16, "right-arm"),  # a hand below its point
    ("skin", 78, 30, 88, 36, "right-leg"),
    ("tights", 78, 44, 88, 50, "left-leg"),
    ("socks", 98, 28, 102, 36, "right-leg"),
    ("gloves", 60, 62, 66, 68, "left-arm"),
    ("boots", 106, 26, 114, 36, "right-shoe"),
    ("sandals", 106, 44, 114, 56, "left-shoe"),
    ("hair", 0, 34, 6, 46, "hair"),
    ("jeans", 66, 30, 74, 50, "pants"),
    ("purse", 50, 70, 60, 78, "bag"),
    ("glasses", 18, 36, 20, 44, "sunglass"),
    ("romper", 28, 34, 50, 46, "dress"),
    ("necklace", 34, 38, 38, 42, "dress"),  # worn on the romper
    ("earrings", 4, 40, 6, 42, "hair"),
]


@pytest.fixture
def seen(tmp_path):
    return label_of(tmp_path, sample([patch[:5] for patch in SEEN]))


@pytest.mark.parametrize("patch", SEEN, ids=lambda patch: f"{patch[0]}-{patch[5]}")
def test_the_pose_decides_what_a_name_leaves_open(seen, patch):
    _, top, left, bottom, right, expected = patch
    middle = seen[(top + bottom) // 2, (left + right) // 2]
    assert ATR.names[middle] == expected


def test_a_hand_that_rests_at_the_hip_is_no_leg(tmp_path):
    resting = POINTS | {"left_elbow": (62, 44), "left_hand": (48, 58)}
    label = label_of(tmp_path, sample([("skin", 56, 43, 63, 50)], resting))
    assert ATR.names[label[59, 46]] == "left-arm"


def test_someone_who_turns_their_back_keeps_their_own_left_and_right(tmp_path):
    turned = {name: (80 - x, y) for name, (x, y) in POINTS.items()}
    label = label_of(
        tmp_path, sample([("skin", 34, 22, 40, 28), ("boots", 106, 26, 114, 36)], turned)
    )
    assert ATR.names[label[37, 25]] == "left-arm" and ATR.names[label[110, 31]] == "left-shoe"


def test_all_56_names_become_one_of_the_18_and_all_18_are_reached():
    assert sorted(" ".join(GROUPS.values()).split()) == sorted(NAMES)
    sides = {f"{side}-{part}" for side in ("left", "right") for part in ("leg", "arm", "shoe")}
    kept = GROUPS.keys() - {"shoe", "leg", "arm", "skin", "surroundings"}
    assert kept | sides | {"face"} == set(ATR.names)


def test_the_original_labels_can_be_kept(tmp_path):
    label = label_of(tmp_path, sample([("clogs", 10, 10, 20, 20)]), labels=56)
    assert NAMES[label[15, 15]] == "clogs" and label[0, 0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("save", [save_mat5, save_mat73])
def test_both_kinds_of_file_give_the_split_and_the_photos_unchanged(tmp_path, save):
    samples = [sample([("coat", 10, 10 + k, 20, 30)]) for k in range(4)]
    source = mat(tmp_path / "f.mat", samples, test=(1, 4), save=save)
    summary = prepare(data_set(source), tmp_path / "set", workers=2)
    assert summary["examples"] == {"train": 2, "test": 2}
    assert (tmp_path / "set/test.txt").read_text().split() == [
        *fashionista_files(1),
        *fashionista_files(4),
    ]
    image, label = (tmp_path / "set" / name for name in fashionista_files(3))
    assert image.read_bytes() == samples[2]["image"].tobytes()
    assert (read_pair(image, label)[1] == ATR.id_of("upper-clothes")).sum() == 10 * 18


def black_photo(height, width):
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_labels_follow_a_photo_that_tells_its_orientation(tmp_path, orientation):
    """The super-pixels are those of the pixels as stored; readers turn the photo upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.zeros((*SHAPE, 3), np.uint8)
    stored[10:20, 8:40] = 255
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "JPEG", exif=exif, quality=95)
    image = np.frombuffer(buffer.getvalue(), np.uint8)
    source = mat(tmp_path / "f.mat", [sample([("coat", 10, 8, 20, 40)], image=image)])
    prepare(data_set(source), tmp_path / "set", workers=1)
    photo, label = read_pair(*(tmp_path / "set" / name for name in fashionista_files(1)))
    np.testing.assert_array_equal(photo[:, :, 0] > 128, label == ATR.id_of("upper-clothes"))


BROKEN = {
    "huge": (
        {"image": np.frombuffer(black_photo(2000, 2000), np.uint8)},
        "photo 1: 'image' has more than 3,840,000 pixels",
    ),
    "photo": ({"image": np.arange(200, dtype=np.uint8)}, "photo 1: 'image' is not a valid JPEG"),
    "cut": (
        {"image": np.frombuffer(photo_bytes(SHAPE)[:-400], np.uint8)},
        "photo 1: 'image' is not a valid JPEG",
    ),
    "size": (
        {"image": np.frombuffer(photo_bytes((50, 40)), np.uint8)},
        r"photo 1: the photo is 40 × 50 and its super-pixel map 80 × 120",
    ),
    "no-pose": ({"pose": np.empty((0, 0))}, "photo 1: has no pose or no annotation"),
    "pose": ({"pose": [{"point": np.ones((13, 2))}]}, "photo 1: 'pose.point' is not 14×2 numbers"),
    "nan": (
        {"pose": [{"point": np.full((14, 2), np.nan)}]},
        "photo 1: 'pose.point' is not 14×2 numbers",
    ),
    "names": ({"annotation": {"labels": ["null", "cloak"]}}, "'cloak' is not one of the 56 labels"),
    "range": (
        {"annotation": {"superpixel_labels": np.array([[1], [99]])}},
        "'superpixel_labels' point beyond the 56 labels",
    ),
    "few": (
        {"annotation": {"superpixel_labels": np.array([[1]])}},
        "'superpixel_map' points beyond its 1 labels",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_damaged_photo_ends_in_one_sentence(tmp_path, case):
    changes, message = BROKEN[case]
    source = mat(tmp_path / "f.mat", [sample([("coat", 10, 10, 20, 20)], **dict(changes))])
    with pytest.raises(InputError, match=message):
        prepare(data_set(source), tmp_path / "set", workers=1)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "f.mat"
    with pytest.raises(InputError, match="f.mat: does not exist"):
        data_set(path)
    path.write_text("not MATLAB")
    with pytest.raises(InputError, match="damaged, or not a MATLAB file"):
        data_set(path)
    save_mat5(path, {"trutz": [{"a": 1.0}]})
    with pytest.raises(InputError, match=r"has no struct 'truths' \(found: trutz\)"):
        data_set(path)
    with pytest.raises(InputError, match="names photos beyond the last of its 1"):
        data_set(mat(path, [sample([])], test=(7,)))
    save_mat5(path, {"truths": [{"a": 1.0}] * 10_961})
    with pytest.raises(InputError, match="claims to have 10,961 photos instead of 685"):
        data_set(path)
    with pytest.raises(InputError, match="20 labels: choose 18 .* or 56"):
        data_set(path, 20)


MEASURED = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


@pytest.mark.slow
def test_the_published_file_in_little_memory_and_time(shared_data, tmp_path):
    """All 685 photos through the command line; the kernel measures its memory, workers included."""
    source = shared_data / "fashionista/fashionista_v0.2.mat"
    arguments = ["data", "fashionista", str(source), str(tmp_path / "set")]
    started = time.monotonic()
    # A small process in between, since a child starts with its parent's peak as its own.
    measured = [sys.executable, "-c", MEASURED, sys.executable, "-m", "lglstm.cli.main", *arguments]
    done = subprocess.run(measured, capture_output=True, text=True, check=True)
    output, _, peak = done.stdout.rstrip().rpartition("\n")
    others = max(1, os.getloadavg()[0] / os.cpu_count())  # what else the machine is busy with
    assert time.monotonic() - started < 120 * others
    assert int(peak) < 300_000  # KiB, the largest process
    assert "456 train (published: 456)" in output and "229 test" in output
    test = (tmp_path / "set/test.txt").read_text().split()
    assert test[::2][:3] == [f"images/fashionista_{k:04d}.jpg" for k in (1, 4, 7)]
    assert fashionista.PUBLISHED == {"train": 456, "test": 229}
    labels = [
        read_pair(*(tmp_path / "set" / n for n in fashionista_files(k)), num_classes=18)[1]
        for k in range(1, 686, 57)
    ]
    assert all({2, 11} <= set(np.unique(label)) for label in labels)  # everyone has hair and a face
