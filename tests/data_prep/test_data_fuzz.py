"""Damaged files of every kind: each gives a result or one sentence, never a crash or a stray file.

2,600 files, each a sound small file with some bytes changed, cut out, or cut off.
"""

import signal

import numpy as np
import pytest
from data_help import SHAPE, files_below, horse, photo_bytes, save_label, save_mat5, save_mat73, voc
from test_fashionista import mat, sample

from lglstm.common.errors import InputError
from lglstm.common.images import read_label, read_photo
from lglstm.data_prep import fashionista, horse_cow
from lglstm.data_prep.prepare import run_task
from lglstm.data_prep.sources import read_names
from lglstm.layers.seg_list import read_list

LONGEST_SECONDS = 30
"""Of processor time, for all files of a kind; they take less than two."""

WORDS = (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\0\x40", b"../..", b"/etc")


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the bytes with one kind of damage."""
    changed = bytearray(data)
    start = int(rng.integers(len(changed)))
    match rng.integers(5):
        case 0:
            del changed[start:]
        case 1:
            del changed[start : start + int(rng.integers(1, 64))]
        case 2:
            word = WORDS[rng.integers(len(WORDS))]
            changed[start : start + len(word)] = word
        case 3:
            changed[start:start] = rng.bytes(int(rng.integers(1, 32)))
        case _:
            for place in rng.integers(0, len(changed), rng.integers(1, 9)):
                changed[place] = rng.integers(256)
    return bytes(changed)


def converted(data_set, task, destination):
    """Run a task as a worker does, and raise what it reports."""
    outcome = run_task(data_set.convert, data_set.labels, destination, task)
    if outcome.error:
        raise InputError(outcome.error)


def horse_annotation(save):
    def build(folder):
        voc(folder, {"a": [horse()]}, save)
        path = folder / "VOC2010/Annotations_Part/a.mat"
        data_set = horse_cow.data_set(folder, horse_cow.HorseCowOptions(smallest=1))
        (task,) = data_set.tasks()
        return path, lambda destination: converted(data_set, task, destination)

    return build


def merged_png(folder):
    voc(folder, {"a": [horse()]})
    path = folder / "VOC2010/Annotations_Part/a.mat"
    path.unlink()
    path = path.with_suffix(".png")
    save_label(path, np.eye(*SHAPE))
    data_set = horse_cow.data_set(folder, horse_cow.HorseCowOptions(smallest=1))
    (task,) = data_set.tasks()
    return path, lambda destination: converted(data_set, task, destination)


def fashionista_file(save):
    def build(folder):
        path = mat(folder / "f.mat", [sample([("coat", 4, 4, 9, 9)], shape=(24, 16))], save=save)

        def read(destination):
            data_set = fashionista.data_set(path)
            for task in data_set.tasks():
                converted(data_set, task, destination)

        return path, read

    return build


def photo(kind):
    def build(folder):
        path = folder / f"a.{kind.lower()}"
        path.write_bytes(photo_bytes((20, 30), kind))
        return path, lambda destination: read_photo(path)

    return build


def label(folder):
    path = folder / "a.png"
    save_label(path, np.eye(20, 30))
    return path, lambda destination: read_label(path, 5)


def list_file(read):
    def build(folder):
        (folder / "images").mkdir()
        lines = []
        for k in range(4):
            (folder / f"images/{k}.jpg").touch()
            lines.append(f"images/{k}.jpg images/{k}.jpg\n")
        path = folder / "train.txt"
        path.write_text("".join(lines))
        return path, lambda destination: read(path)

    return build


def plain(save):
    return lambda path, variables: save(path, variables, compressed=False)


KINDS = {
    "annotation": (horse_annotation(save_mat5), 300),
    "annotation-plain": (horse_annotation(plain(save_mat5)), 400),
    "annotation-7.3": (horse_annotation(save_mat73), 250),
    "merged": (merged_png, 200),
    "fashionista": (fashionista_file(save_mat5), 150),
    "fashionista-plain": (fashionista_file(plain(save_mat5)), 300),
    "fashionista-7.3": (fashionista_file(save_mat73), 100),
    "jpeg": (photo("JPEG"), 300),
    "png": (photo("PNG"), 150),
    "label": (label, 250),
    "list": (list_file(read_list), 150),
    "names": (list_file(lambda path: read_names(path, lambda name: False)), 50),
}


def test_there_are_enough_of_them():
    assert sum(count for _, count in KINDS.values()) >= 2000


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_damage_ends_in_a_result_or_one_sentence(tmp_path, kind):
    build, count = KINDS[kind]
    (tmp_path / "source").mkdir()
    path, read = build(tmp_path / "source")
    sound = path.read_bytes()
    read(tmp_path / "set")
    before = files_below(tmp_path / "source")
    refused = 0
    with time_limit():
        for seed in range(count):
            path.write_bytes(mutated(sound, np.random.default_rng(seed)))
            try:
                read(tmp_path / "set")
            except InputError as error:
                assert "\n" not in str(error)
                refused += 1
    assert files_below(tmp_path / "source") == before
    assert {p.parts[-2] for p in (tmp_path / "set").rglob("*.*")} <= {"images", "labels"}
    assert {p.name for p in tmp_path.iterdir()} <= {"source", "set"}
    assert refused > count // 20


class time_limit:
    """Fail when a file keeps a reader busy forever."""

    def __enter__(self):
        def stop(*_):
            raise TimeoutError("a reader hangs")

        self.before = signal.signal(signal.SIGPROF, stop)
        signal.setitimer(signal.ITIMER_PROF, LONGEST_SECONDS)

    def __exit__(self, *exception):
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, self.before)
