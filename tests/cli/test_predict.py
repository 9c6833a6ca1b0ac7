"""Prediction: folders with bad files in them, exact areas, a Dask worker killed half-way."""

import csv
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

caffe = pytest.importorskip("caffe", reason="needs Caffe: make setup")

from evaluation_help import COLORS, HORSE, color_net  # noqa: E402
from PIL import Image  # noqa: E402

from lglstm.cli.main import main  # noqa: E402
from lglstm.common.images import read_label  # noqa: E402
from lglstm.evaluation.engines import net_files  # noqa: E402
from lglstm.evaluation.overlay import overlay_with_legend  # noqa: E402
from lglstm.evaluation.predictor import Predictor  # noqa: E402


@pytest.fixture(scope="module")
def colors(tmp_path_factory):
    return color_net(tmp_path_factory.mktemp("net"))


def predict(*arguments):
    return CliRunner().invoke(main, ["predict", *map(str, arguments)])


def halves(left: int, right: int, height: int = 30, width: int = 50) -> np.ndarray:
    """A photo whose left half is of one class's color, the right half of another's."""
    ids = np.full((height, width), left)
    ids[:, width // 2 :] = right
    return COLORS[ids]


def test_a_folder_with_bad_files_gives_all_good_ones(colors, tmp_path):
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    cv2.imwrite(str(photos / "a.png"), halves(1, 3))
    cv2.imwrite(str(photos / "more/b.png"), halves(2, 2, 24, 40))
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    (photos / "notes.txt").write_text("no photo")
    out = tmp_path / "out"
    arguments = (colors[0], photos, "--weights", colors[1], "--output", out, "--batch", 2)
    result = predict(*arguments, "--scores", "--json")
    assert result.exit_code == 1  # one photo could not be read
    assert "not parsed: " in result.stderr and "broken.jpg" in result.stderr
    by_name = {Path(entry["photo"]).name: entry for entry in json.loads(result.stdout)}
    assert set(by_name) == {"a.png", "b.png", "broken.jpg"}
    areas = by_name["a.png"]["areas"]
    assert areas["head"] == pytest.approx(0.5, abs=0.03)
    assert areas["leg"] == pytest.approx(0.5, abs=0.03)
    assert sum(areas.values()) == pytest.approx(1)

    ids = read_label(out / "labels/a.png")
    assert ids.shape == (30, 50) and (ids[:, :22] == 1).all() and (ids[:, 28:] == 3).all()
    with Image.open(out / "labels/a.png") as image:
        assert image.mode == "P" and image.getpalette()[3:6] == list(HORSE.colors[1])
    scores = np.load(out / "scores/more/b.npy", allow_pickle=False)
    assert scores.shape == (5, 24, 40) and (scores.argmax(0) == 2).all()
    with Image.open(out / "overlays/more/b.jpg") as drawing:
        assert drawing.width > drawing.height
    rows = list(csv.DictReader((out / "areas.csv").open()))
    assert [row["photo"] for row in rows] == ["a", "more/b"]
    assert (rows[1]["width"], rows[1]["height"], rows[1]["body"]) == ("40", "24", "1.000000")


def test_photos_are_not_parsed_twice(colors, tmp_path, monkeypatch):
    for k in range(3):
        cv2.imwrite(str(tmp_path / f"{k}.png"), halves(k, k + 1))
    out = tmp_path / "out"
    arguments = (colors[0], *tmp_path.glob("*.png"), "--weights", colors[1], "--output", out)
    assert predict(*arguments).exit_code == 0
    first = (out / "areas.csv").read_text()
    (out / "overlays/1.jpg").unlink()
    parsed = []
    original = Predictor.scores
    monkeypatch.setattr(
        Predictor,
        "scores",
        lambda self, photos: parsed.append(len(photos)) or original(self, photos),
    )
    assert predict(*arguments).exit_code == 0
    assert parsed == [1]
    assert (out / "areas.csv").read_text() == first


def test_a_long_collection_is_read_only_a_little_ahead(colors):
    predictor = Predictor(net_files(*colors), batch_size=2)
    read = []

    def reading(job):
        read.append(job)
        return halves(job % 5, 0)

    def finishing(job, prediction):
        return prediction.scores["score"][:, 0, 0].argmax()

    for k, (job, future) in enumerate(predictor.stream(range(60), reading, finishing)):
        assert (job, future.result()) == (k, k % 5)
        assert len(read) <= k + 1 + 6 * predictor.batch_size
    assert sorted(read) == list(range(60))


def test_one_class_everywhere_is_warned_of(colors, tmp_path):
    cv2.imwrite(str(tmp_path / "gray.png"), halves(0, 0))
    result = predict(
        colors[0], tmp_path / "gray.png", "--weights", colors[1], "--output", tmp_path / "out"
    )
    assert result.exit_code == 0
    assert "warning: 100.0% of all pixels are predicted as background" in result.stderr


@pytest.mark.slow
def test_what_cannot_be_parsed_is_said(colors, tmp_path, monkeypatch):
    net = (colors[0], "--weights", colors[1], "--output", tmp_path / "out")
    empty = predict(*net, tmp_path)
    assert empty.exit_code == 1 and "no photos there" in empty.stderr
    for suffix in ("png", "bmp"):
        cv2.imwrite(str(tmp_path / f"twin.{suffix}"), halves(0, 1))
    address = predict(*net, "https://example.org/horse.jpg")
    words = "is an address; download the photo and name its file"
    assert address.exit_code == 1
    assert address.stderr == f"error: https://example.org/horse.jpg: {words}\n"
    heic = tmp_path / "phone.heic"
    heic.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    both = predict(*net, heic, tmp_path / "twin.png")
    assert both.exit_code == 1 and f"not parsed: {heic}: is " in both.stderr
    assert (tmp_path / "out/labels/twin.png").is_file()
    monkeypatch.setattr("lglstm.common.parallel.CONNECT_SECONDS", 1)
    nobody = predict(*net, tmp_path / "twin.png", "--scheduler", "tcp://127.0.0.1:9")
    assert nobody.exit_code == 1 and "no Dask scheduler answers there" in nobody.stderr


def test_photos_that_differ_in_their_suffix_keep_it(colors, tmp_path):
    """Also where one's whole name is that of another without its suffix."""
    wanted = {"same.png": 1, "same.bmp": 2, "same.png.bmp": 3, "other.png": 4}
    for name, part in wanted.items():
        (tmp_path / "photos").mkdir(exist_ok=True)
        assert cv2.imwrite(str(tmp_path / "photos" / name), halves(part, part))
    out = tmp_path / "out"
    result = predict(colors[0], tmp_path / "photos", "--weights", colors[1], "--output", out)
    assert result.exit_code == 0, result.stderr
    made = {path.name: int(read_label(path)[5, 5]) for path in (out / "labels").iterdir()}
    assert made == {"same.png.png": 1, "same.bmp.png": 2, "same.png.bmp.png": 3, "other.png": 4}


@pytest.mark.parametrize("suffix", [".jp2", ".avif"])
def test_photos_of_newer_formats_are_parsed_where_pillow_reads_them(colors, tmp_path, suffix):
    Image.init()
    if {".jp2": "JPEG2000", ".avif": "AVIF"}[suffix] not in Image.SAVE:
        pytest.skip(f"this Pillow has no {suffix}")
    photo = tmp_path / f"photo{suffix}"
    Image.fromarray(halves(1, 2)[:, :, ::-1]).save(photo)
    result = predict(colors[0], photo, "--weights", colors[1], "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    ids = read_label(tmp_path / "out/labels/photo.png")
    assert (ids[:, 2] == 1).all() and (ids[:, -2] == 2).all()


def test_a_video_becomes_a_video_and_a_table(colors, tmp_path):
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10, (60, 40))
    for k in range(7):
        writer.write(halves(1 + k % 4, 1 + k % 4, 40, 60))
    writer.release()
    net = (colors[0], "--weights", colors[1], "--batch", "3", "--output", tmp_path / "out")
    result = predict(*net, clip, "--json")
    assert result.exit_code == 0, result.stderr
    (made,) = json.loads(result.stdout)
    assert made["frames"] == 7
    with open(made["areas"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["seconds"] for row in rows] == [f"{k / 10:.3f}" for k in range(7)]
    for k, row in enumerate(rows):
        assert float(row[HORSE.names[1 + k % 4]]) == 1, row
    drawn = cv2.VideoCapture(made["overlay"])
    assert [drawn.get(x) for x in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FPS)] == [60, 10]
    is_read, frame = drawn.read()
    blue_green_red = np.array(HORSE.colors[1])[::-1]
    assert is_read
    np.testing.assert_allclose(frame[20, 30], COLORS[1] * 0.45 + blue_green_red * 0.55, atol=12)
    cut = json.loads(predict(*net, clip, "--seconds", "0.4", "--json").stdout)
    assert cut[0]["frames"] == 4


def test_videos_that_cannot_be_parsed_are_said(colors, tmp_path):
    net = (colors[0], "--weights", colors[1], "--output", tmp_path / "out")
    playlist = tmp_path / "list.mp4"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nhttps://example.org/a.ts\n")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0\0\0\x18ftypisom" + bytes(500))
    for arguments, message in (
        ([playlist], "list.mp4: is not an MP4, MOV, AVI, MKV or WebM video"),
        ([broken], "broken.mp4: cannot be opened; check that it plays"),
        ([tmp_path / "none.mp4"], "none.mp4: cannot be read (No such file or directory)"),
        (["--camera", "99"], "camera 99: cannot be opened; check its number"),
        ([], "give photos, folders with photos or videos, or --camera N"),
    ):
        result = predict(*net, *arguments)
        assert result.exit_code and message in result.stderr, result.stderr
    assert not list((tmp_path / "out").rglob("*.mp4")) and not list(tmp_path.rglob("*.csv"))


def test_a_video_that_cannot_be_written_whole_leaves_the_one_before(colors, tmp_path):
    """OpenCV does not say when the disk is full; a limit on the size of files is as good."""
    clip = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 240))
    rng = np.random.default_rng(0)
    for _ in range(8):
        writer.write(rng.integers(0, 255, (240, 320, 3), np.uint8))
    writer.release()
    arguments = (colors[0], clip, "--weights", colors[1], "--output", tmp_path / "out")
    assert predict(*arguments).exit_code == 0
    made = [tmp_path / "out/videos/clip.mp4", tmp_path / "out/videos/clip.csv"]
    before = [path.read_bytes() for path in made]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
        result = predict(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == 1
    assert f"{made[0]}: cannot be written whole" in result.stderr
    assert "check the free space" in result.stderr
    assert [path.read_bytes() for path in made] == before
    assert len(list(made[0].parent.iterdir())) == 2


def test_results_among_the_photos_are_not_parsed(colors, tmp_path):
    photos = tmp_path / "photos"
    (photos / "labels of mine").mkdir(parents=True)
    for name in ("a.png", "labels of mine/b.png"):
        cv2.imwrite(str(photos / name), halves(1, 2))
    arguments = (colors[0], photos, "--weights", colors[1], "--json", "--output")
    for _ in range(2):
        result = predict(*arguments, photos)
        assert result.exit_code == 0, result.stderr
        assert len(json.loads(result.stdout)) == 2
    shutil.copy(photos / "labels/a.png", photos / "copy.png")
    assert len(json.loads(predict(*arguments, tmp_path / "out").stdout)) == 2


def test_a_folder_that_cannot_be_entered_is_said(colors, tmp_path, monkeypatch):
    """Root may enter every folder, so the system's answer is played."""
    closed = tmp_path / "photos/closed"
    closed.mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "photos/a.png"), halves(1, 2))
    scandir = os.scandir

    def refusing(path="."):
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    result = predict(colors[0], tmp_path / "photos", "--weights", colors[1], "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert f"error: {closed}: cannot be entered (Permission denied)" in result.stderr
    assert not (tmp_path / "out/labels").exists()


def test_overlay_colors_parts_and_names_them():
    ids = np.zeros((40, 60), np.uint8)
    ids[:, 30:] = 2
    photo = np.full((40, 60, 3), 100, np.uint8)
    drawing = np.asarray(overlay_with_legend(photo, ids, HORSE))
    height = drawing.shape[0]
    assert (drawing[: height // 2, 10] == 100).all()  # background stays as it is
    body = 100 + 0.55 * (np.array(HORSE.colors[2]) - 100)
    np.testing.assert_allclose(drawing[height // 2, 300], body, atol=1)
    plain = np.asarray(overlay_with_legend(photo, np.zeros_like(ids), HORSE))
    assert (plain[:, -40:] != 250).any()  # the legend then says "only background"


def test_the_legend_grows_with_the_photo():
    def legend(longest: int) -> tuple[int, int]:
        """Width of the legend, and height of its text, in pixels."""
        shape = (longest // 2, longest)
        drawing = overlay_with_legend(
            np.zeros((*shape, 3), np.uint8), np.full(shape, 2, np.uint8), HORSE
        )
        right = np.asarray(drawing)[:, longest + 5 :]
        text = right[:, right.shape[1] // 2 :]
        return right.shape[1] + 5, np.ptp(np.flatnonzero((text < 240).any((1, 2))))

    small, large = legend(640), legend(1600)
    assert large[0] == pytest.approx(2.5 * small[0], rel=0.05)
    assert large[1] == pytest.approx(2.5 * small[1], rel=0.3)


@pytest.mark.slow
def test_every_photo_is_parsed_once_when_a_worker_is_killed(colors, tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs the package distributed")
    count, photos, out = 160, tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for k in range(count):
        cv2.imwrite(str(photos / f"{k:03}.png"), halves(k % 5, (k // 5) % 5, 400, 600))
    command = [
        sys.executable, "-m", "lglstm.cli.main", "predict", colors[0], photos,
        "--weights", colors[1], "--output", out, "--cpu", "--json",
    ]  # fmt: skip
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        process = subprocess.Popen(
            [*map(str, command), "--scheduler", cluster.scheduler_address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        labels = out / "labels"
        deadline = time.monotonic() + 240
        while len(list(labels.glob("0*.png"))) < 30:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.01)
        # Only label maps that are there under their own name are whole; temporary ones come and go.
        before = {path: path.stat().st_ino for path in labels.glob("[0-9]*.png")}
        os.kill(cluster.workers[0].process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    assert len(before) < count  # it was killed half-way
    results = json.loads(stdout)
    assert [Path(entry["photo"]).stem for entry in results] == [f"{k:03}" for k in range(count)]
    # What was finished before was not written again.
    assert all(path.stat().st_ino == inode for path, inode in before.items())
    rows = list(csv.DictReader((out / "areas.csv").open()))
    assert [row["photo"] for row in rows] == [f"{k:03}" for k in range(count)]
    for k, row in enumerate(rows):
        share = 1.0 if k % 5 == (k // 5) % 5 else 0.5
        assert float(row[HORSE.names[k % 5]]) == pytest.approx(share, abs=0.05)
