"""Videos and cameras, parsed frame by frame.

    OUTPUT/videos/<name>.mp4    the video with its parts in color
    OUTPUT/videos/<name>.csv    each part's share of each frame, with its time in seconds

Frames are parsed on their own: nothing is carried from one to the next.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lglstm.caffe_files import wire
from lglstm.common.errors import InputError
from lglstm.common.files import atomic_path, write_text
from lglstm.common.images import MAX_PIXELS
from lglstm.common.labels import LabelSet, class_shares
from lglstm.common.progress import Report, no_report
from lglstm.evaluation.overlay import overlay
from lglstm.evaluation.predictor import Predictor
from lglstm.evaluation.resume import TABLE_START, VIDEOS

SUFFIXES = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm"}

_USUAL_RATE = 25.0  # frames a second, of a camera that does not say
_HIGHEST_RATE = 1000.0


@dataclass(frozen=True)
class ParsedVideo:
    """What was made of a video: its two files, and how many frames they have.

    expected: the frames that the file says it has; 0 if it does not say.
    """

    source: str
    video: Path
    table: Path
    frames: int
    expected: int = 0

    @property
    def is_short(self) -> bool:
        """Whether many frames that the file promises could not be read."""
        return self.frames < 0.9 * self.expected


def is_video(path: Path) -> bool:
    """By its name; a folder is none."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def files_of(folder: Path, name: str) -> tuple[Path, Path]:
    """The video and the table that are made of the video of this name."""
    return folder / VIDEOS / f"{name}.mp4", folder / VIDEOS / f"{name}.csv"


def parse_video(
    predictor: Predictor,
    source: Path | int,
    folder: Path,
    name: str,
    labels: LabelSet,
    seconds: float | None = None,
    report: Report = no_report,
) -> ParsedVideo:
    """Parse a video file, or what the camera of this number sees, until it or `seconds` end.

    folder, name: where the files go, see above; both appear when all is done. Ctrl-C ends a
    recording from a camera as if its time was over. Raises InputError for a file that is no video,
    for a camera that cannot be used, and for a video that could not be written whole.
    """
    what = f"camera {source}" if isinstance(source, int) else str(source)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*TABLE_START, *labels.names])
    target, target_table = files_of(folder, name)
    with _opened(source, what) as capture:
        rate, expected = _rate(capture), max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        most = None if seconds is None else max(1, round(seconds * rate))
        expected = min(expected, most or expected)
        frames, count = islice(_frames(capture), most), 0
        ends = contextlib.suppress(*([KeyboardInterrupt] if isinstance(source, int) else []))
        with atomic_path(target) as temporary:
            with _Writer(temporary, rate) as writer, ends:
                while batch := list(islice(frames, predictor.batch_size)):
                    for prediction in predictor.predict(batch):
                        ids = prediction.label_map
                        shares = class_shares(ids, labels.num_classes)
                        writer.write(overlay(prediction.photo, ids, labels))
                        values = (f"{share:.6f}" for share in shares)
                        table.writerow([count, f"{count / rate:.3f}", *values])
                        count += 1
                    report(count, max(count, expected))
            if not count:
                raise InputError(f"{what}: gives no frames; check that it plays")
            _check_whole(temporary, writer.frames, target)
            # Before the video gets its name: a video without its table is not taken for ours.
            write_text(target_table, text.getvalue())
    return ParsedVideo(what, target, target_table, count, expected)


@contextlib.contextmanager
def _opened(source: Path | int, what: str) -> Iterator[Any]:
    """OpenCV's capture of a video. Raises InputError if it cannot be opened."""
    if isinstance(source, Path):
        _check_container(source)
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)  # what matters is said here
    try:
        capture = cv2.VideoCapture(source if isinstance(source, int) else str(source.resolve()))
        if not capture.isOpened():
            raise InputError(f"{what}: cannot be opened; check {_advice(source)}")
        pixels = capture.get(cv2.CAP_PROP_FRAME_WIDTH) * capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        if pixels > MAX_PIXELS:
            raise InputError(
                f"{what}: has frames of {pixels:,.0f} pixels, more than the allowed "
                f"{MAX_PIXELS:,}; scale it down first"
            )
        try:
            yield capture
        finally:
            capture.release()
    finally:
        logging.setLogLevel(level)


def _advice(source: Path | int) -> str:
    return "its number and that you may use it" if isinstance(source, int) else "that it plays"


def _check_container(path: Path) -> None:
    """Refuse what is no video: a playlist, say, could name other files and addresses to read."""
    with wire.opened(path) as file:
        start = file.read(12)
    is_mp4 = start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
    is_avi = start[:4] == b"RIFF" and start[8:12] == b"AVI "
    is_matroska = start[:4] == b"\x1a\x45\xdf\xa3"
    if not (is_mp4 or is_avi or is_matroska):
        raise InputError(f"{path}: is not an MP4, MOV, AVI, MKV or WebM video; convert it to one")


def _rate(capture: Any) -> float:
    """Frames a second."""
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if 0 < rate <= _HIGHEST_RATE else _USUAL_RATE  # NaN, too


def _frames(capture: Any) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 BGR, one after the other."""
    while True:
        is_read, frame = capture.read()
        if not is_read:
            return
        yield frame


def _check_whole(written: Path, frames: int, target: Path) -> None:
    """Raise InputError if fewer frames can be read than were written; OpenCV's writer says nothing.

    written: the file that is to become `target`.
    """
    capture = cv2.VideoCapture(str(written.resolve()))
    found = 0
    while found < frames and capture.grab():
        found += 1
    capture.release()
    if found < frames:
        raise InputError(
            f"{target}: cannot be written whole ({found} of its {frames} frames can be read); "
            "check the free space of its folder"
        )


class _Writer:
    """A video file that takes the size of its first frame."""

    frames = 0

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self._file: Any = None

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.release()

    def write(self, frame: np.ndarray) -> None:
        if self._file is None:
            size = frame.shape[1], frame.shape[0]
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._file = cv2.VideoWriter(str(self.path), code, self.rate, size)
            if not self._file.isOpened():
                raise InputError(
                    f"{self.path.parent}: this OpenCV cannot write videos; install "
                    "opencv-python-headless from PyPI"
                )
        self._file.write(frame)
        self.frames += 1
