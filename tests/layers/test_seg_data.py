"""SegDataOptions, lists, the order of examples and the decoding processes; no Caffe needed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from seg_help import AUGMENTATION, EXAMPLES, digest, make_set, settings

from lglstm.common import child
from lglstm.common.errors import InputError
from lglstm.common.preprocessing import to_blob
from lglstm.layers import seg_options
from lglstm.layers.seg_batches import Batches
from lglstm.layers.seg_list import read_list
from lglstm.layers.seg_options import HORSE_COW_AUGMENTATION, Augmentation, SegDataOptions
from lglstm.layers.seg_prefetch import Inline, Prefetcher


@pytest.fixture(scope="module")
def list_file(tmp_path_factory) -> Path:
    return make_set(tmp_path_factory.mktemp("set") / "data")


def opened(list_file: Path, **more) -> Batches:
    options = seg_options.parse(settings(list_file, **more))
    return Batches(options, read_list(list_file))


def names(batches: Batches, numbers: range) -> list[str]:
    """The digests of some batches."""
    data = np.empty(batches.options.data_shape, np.float32)
    label = np.empty(batches.options.label_shape, np.float32)
    result = []
    for number in numbers:
        batches.fill(number, data, label)
        result.append(digest(data, label))
    return result


# --- options ----------------------------------------------------------------------------------


def test_options_survive_json(list_file):
    options = seg_options.parse(settings(list_file, rank=1, world_size=2, **AUGMENTATION))
    assert seg_options.parse(options.to_json()) == options
    assert options.shuffle and options.augmentation.mirror_swaps == ((1, 2),)
    assert not seg_options.parse(settings(list_file, train=False)).shuffle


def test_every_key_has_one_rule():
    keys = {*SegDataOptions.__dataclass_fields__, *Augmentation.__dataclass_fields__} - {
        "augmentation"
    }
    assert set(seg_options.RULES) == keys


def test_the_tables_of_the_document_are_right():
    text = (Path(__file__).parents[2] / "docs/data_layer.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    stated = {key: row for row in rows for key in re.findall(r"`(\w+)`", row[0])}
    assert set(stated) == set(seg_options.RULES)
    for key, field in Augmentation.__dataclass_fields__.items():
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        assert json.loads(stated[key][1].strip("`")) == default
        assert json.loads(stated[key][2].strip("`")) == HORSE_COW_AUGMENTATION.get(key, default)
    for key in ("label_stride", "ignore_label", "seed", "workers", "prefetch", "train"):
        assert json.loads(stated[key][1]) == SegDataOptions.__dataclass_fields__[key].default


def test_changes_are_off_by_default_and_stated_for_horse_and_cow(list_file):
    photo, label = np.full((9, 11, 3), 90, np.uint8), np.ones((9, 11), np.uint8)
    same = seg_options.parse(settings(list_file)).augmentation
    assert same == Augmentation()
    from lglstm.layers.seg_augment import augment

    rng = np.random.default_rng(0)
    for _ in range(5):
        unchanged = augment(photo, label, same, rng)
        assert unchanged[0].dtype == np.uint8
        np.testing.assert_array_equal(unchanged[0], photo)
        np.testing.assert_array_equal(unchanged[1], label)
    chosen = seg_options.parse(settings(list_file, **HORSE_COW_AUGMENTATION)).augmentation
    assert all(getattr(chosen, key) != getattr(same, key) for key in HORSE_COW_AUGMENTATION)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batchsize": 2}, "unknown key batchsize; did you mean batch_size"),
        ({"zzz": 2}, "unknown key zzz; choose one of list, root"),
        ({"batch_size": None}, "batch_size is missing; it must be a whole number from 1"),
        ({"batch_size": 0}, "batch_size is 0; it must be a whole number from 1 to"),
        ({"batch_size": True}, "batch_size is true; it must be a whole number"),
        ({"seed": 1.0}, "seed is 1.0; it must be a whole number from 0"),
        ({"input_size": 321}, r"input_size is 321; it must be \[height, width\]"),
        ({"num_classes": 257}, "num_classes is 257; .* from 1 to 256"),
        ({"mirror": 1}, "mirror is 1; it must be true or false"),
        ({"rotation": 10}, r"rotation is 10; it must be \[low, high\] with -180"),
        ({"scale": [1.2, 0.8]}, r"scale is \[1.2, 0.8\]; it must be \[low, high\]"),
        ({"crop": [float("nan"), 1]}, r"crop is \[NaN, 1\]; it must be"),
        ({"mirror_swaps": [[1, 2], [2, 3]]}, "mirror_swaps is .* each id once"),
        ({"mirror_swaps": [[1, 7]]}, "names id 7; it must be below num_classes, 5"),
        ({"mean": [1, 2]}, r"mean is \[1, 2\]; it must be \[blue, green, red\]"),
        ({"rank": 1}, "rank and world_size belong together"),
        ({"rank": 2, "world_size": 2}, "rank is 2; it must be below world_size, 2"),
        ({"list": 5}, "list is 5; it must be a path in quotes"),
        ({"list": "a\0b"}, r'list is "a.u0000b"; it must be a path in quotes'),
        ({"list": "\ud800"}, r"it must be a path in quotes"),
        ({"root": "a\0b"}, r"root is .* it must be a path in quotes"),
        ({"list": json.loads("[" * 900 + "]" * 900)}, "list is .* it must be a path in quotes"),
        ({"seed": 10**400}, "seed is 1000.*…; it must be a whole number from 0"),
        ({"scale": [1, 10**400]}, "scale is .*; it must be .low, high."),
        ({"mean": [1, 2, 10**400]}, "mean is .*; it must be .blue, green, red."),
        (
            {"batch_size": 65_536, "input_size": [16_384, 16_384]},
            "ask for 52,776,558,133,248 numbers at a time; Caffe allows 2,147,483,647",
        ),
    ],
)
def test_bad_options_name_the_layer_and_what_is_allowed(given, message):
    with pytest.raises(InputError, match=message) as caught:
        seg_options.parse(settings(Path("a/train.txt"), **given))
    assert str(caught.value).startswith("SegData layer of ")


def test_a_key_given_twice_is_refused():
    with pytest.raises(InputError, match="SegData layer: param_str gives seed twice; give every"):
        seg_options.parse('{"list": "a.txt", "seed": 1, "seed": 2}')


@pytest.mark.parametrize("text", ["", "{", "[1]", "list: a", "[" * 100_000])
def test_param_str_must_be_a_json_object(text):
    with pytest.raises(InputError, match="param_str is|list is missing"):
        seg_options.parse(text)


# --- lists ------------------------------------------------------------------------------------


def test_lists(tmp_path, list_file):
    examples = read_list(list_file)
    assert len(examples) == EXAMPLES and examples[2].line == 3
    blanks = tmp_path / "my photos"
    blanks.mkdir()
    for name in ("a b.jpg", "a b.png"):
        (blanks / name).touch()
    other = tmp_path / "list.txt"
    other.write_text("\r\n\nmy photos/a b.jpg\tmy photos/a b.png\r\n")
    assert read_list(other)[0].line == 3
    other.write_text("a b.jpg\ta b.png")
    assert Path(read_list(other, blanks)[0].photo) == blanks / "a b.jpg"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_with_a_byte_order_mark(list_file, encoding):
    other = list_file.with_name("windows.txt")
    other.write_text(list_file.read_text().replace("\n", "\r\n"), encoding)
    assert read_list(other) == read_list(list_file)


def test_lists_whose_paths_begin_with_a_slash(tmp_path, list_file):
    """DeepLab's: the folder of the data set is put in front of them."""
    slashes = tmp_path / "list.txt"
    lines = [f"/{line}\n".replace(" ", " /") for line in list_file.read_text().splitlines()]
    slashes.write_text("".join(lines))
    assert read_list(slashes, list_file.parent) == read_list(list_file)
    with pytest.raises(InputError, match=r"the folder that has images/0\.png, or set root"):
        read_list(slashes, tmp_path / "elsewhere")
    slashes.write_text("/../images/0.png /labels/0.png")
    with pytest.raises(InputError, match="leads outside the folder"):
        read_list(slashes, list_file.parent)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; it must have a line"),
        ("images/0.png\n", "line 1: has 1 entries instead of `image label`; separate"),
        ("\na b c\n", "line 2: has 3 entries"),
        ("/etc/passwd labels/0.png", "line 1: /etc/passwd leads outside the folder"),
        ("images/0.png x/../../labels/0.png", "leads outside the folder"),
        (
            "images/0.png labels/0.png\nimages/x.png labels/x.png",
            r"line 2: \S+images/x.png does not exist \(and 1 more of the list's files\); prepare",
        ),
        ("images labels/0.png", r"line 1: \S+images does not exist; prepare"),
    ],
)
def test_bad_lists_name_the_line(list_file, text, message):
    bad = list_file.with_name("bad.txt")
    bad.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_list(bad)
    assert str(caught.value).startswith(str(bad))


def test_a_list_that_is_none(tmp_path):
    with pytest.raises(InputError, match="no such list .* prepare the data set first"):
        read_list(tmp_path / "none.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_list(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_list(tmp_path / "photo.jpg")


# --- order ------------------------------------------------------------------------------------


def test_epochs_are_permutations_that_differ(list_file):
    batches = opened(list_file)
    stream = [batches.index(e) for e in range(5 * EXAMPLES)]
    epochs = [stream[i * EXAMPLES :][:EXAMPLES] for i in range(5)]
    assert all(sorted(epoch) == list(range(EXAMPLES)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 5
    assert [opened(list_file, seed=4).index(e) for e in range(EXAMPLES)] != epochs[0]
    ordered = opened(list_file, train=False)
    assert [ordered.index(e) for e in range(2 * EXAMPLES)] == [*range(EXAMPLES)] * 2


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_every_epoch_without_overlap(list_file, world_size):
    """Together, `world_size` ranks see the very stream that one process sees."""
    ranks = [opened(list_file, rank=r, world_size=world_size) for r in range(world_size)]
    numbers = [e for number in range(EXAMPLES) for rank in ranks for e in rank.stream(number)]
    assert sorted(numbers) == list(range(2 * world_size * EXAMPLES))
    seen = Counter(ranks[0].index(e) for e in numbers)
    assert set(seen.values()) == {2 * world_size}


def test_a_batch_depends_on_its_number_and_the_seed_alone(list_file):
    whole = names(opened(list_file, **AUGMENTATION), range(12))
    assert len(set(whole)) == 12
    assert names(opened(list_file, **AUGMENTATION), range(5, 12)) == whole[5:]
    assert names(opened(list_file, **AUGMENTATION), range(11, 3, -1)) == whole[:3:-1]
    assert not set(names(opened(list_file, seed=4, **AUGMENTATION), range(12))) & set(whole)


def test_a_batch_without_changes_is_the_photo_and_its_labels(list_file):
    from lglstm.common.images import read_pair

    batches = opened(list_file, train=False, batch_size=3, label_stride=1)
    data = np.empty(batches.options.data_shape, np.float32)
    label = np.empty(batches.options.label_shape, np.float32)
    batches.fill(1, data, label)
    example = batches.examples[4]
    photo, ids = read_pair(example.photo, example.label)
    np.testing.assert_array_equal(data[1], to_blob(photo, (17, 25)))
    rows = ((np.arange(17) + 0.5) * ids.shape[0] / 17).astype(int)
    columns = ((np.arange(25) + 0.5) * ids.shape[1] / 25).astype(int)
    np.testing.assert_array_equal(label[1, 0], ids[np.ix_(rows, columns)])


# --- decoding processes -----------------------------------------------------------------------


@pytest.fixture
def prefetch(list_file):
    """Opens a source of batches that is closed after the test."""
    sources = []

    def open_source(**more) -> Prefetcher:
        options = seg_options.parse(settings(list_file, **more))
        sources.append(Prefetcher(options, read_list(list_file)))
        return sources[-1]

    yield open_source
    for source in sources:
        source.close()


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (2, 3), (3, 2)])
def test_workers_give_the_same_batches_in_any_order(list_file, prefetch, workers, ahead):
    source = prefetch(workers=workers, prefetch=ahead, **AUGMENTATION)
    inline = Inline(source._options, read_list(list_file))
    for number in (0, 1, 2, 3, 4, 5, 900, 901, 2, 2, 3):
        assert digest(*source.batch(number)) == digest(*inline.batch(number))


@pytest.mark.slow
def test_a_batch_stays_until_the_next_is_asked_for(prefetch):
    source = prefetch(workers=2, prefetch=2)
    data, label = source.batch(0)
    before = digest(data, label)
    time.sleep(0.3)  # the workers have filled every other slot by now
    assert digest(data, label) == before


@pytest.mark.slow
def test_a_bad_example_stops_with_its_line(tmp_path, prefetch):
    list_file = make_set(tmp_path / "data", 3)
    (tmp_path / "data/images/1.png").write_bytes(b"no picture")
    where = r"train.txt, line 2: \S+images/1.png: is not a .* file"
    options = seg_options.parse(settings(list_file, train=False, batch_size=1, workers=2))
    source = Prefetcher(options, read_list(list_file))
    try:
        source.batch(0)
        with pytest.raises(InputError, match=where):
            source.batch(1)
        source.batch(2)
        with pytest.raises(InputError, match=where):
            source.batch(1)
    finally:
        source.close()
    with pytest.raises(InputError, match=where):
        Inline(options, read_list(list_file)).batch(1)


@pytest.mark.slow
def test_a_dead_worker_is_reported(prefetch):
    source = prefetch(workers=2, prefetch=2)
    source.batch(0)
    source._workers[1]._process.kill()
    with pytest.raises(InputError, match=r"ended unexpectedly \(killed by signal 9\).*workers: 0"):
        for number in range(1, 20):
            source.batch(number)


@pytest.mark.slow
def test_ctrl_c_leaves_the_workers_alone(prefetch):
    source = prefetch(workers=1, prefetch=1)
    source.batch(0)
    process = source._workers[0]._process
    process.send_signal(signal.SIGINT)
    for number in range(1, 6):
        source.batch(number)
    assert process.poll() is None and os.getsid(process.pid) != os.getsid(0)


@pytest.mark.slow
def test_killing_the_parent_leaves_nothing_behind(list_file):
    program = (
        "import sys, time; from lglstm.layers import seg_options\n"
        "from lglstm.layers.seg_list import read_list\n"
        "from lglstm.layers.seg_prefetch import Prefetcher\n"
        "source = Prefetcher(seg_options.parse(sys.argv[1]), read_list(sys.argv[2]))\n"
        "source.batch(0)\n"
        "print(*(worker._process.pid for worker in source._workers), flush=True)\n"
        "time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, settings(list_file), str(list_file)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2 and all(map(running, workers))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while any(map(running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(running, workers))


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_the_job_is_plain_json(list_file):
    """No pickle crosses the pipe."""
    options = seg_options.parse(settings(list_file))
    assert json.loads(replace(options, rank=0, world_size=1).to_json())["world_size"] == 1


def test_a_worker_whose_parent_died_before_its_job_ends_quietly():
    command = child.module_command("lglstm.layers.seg_worker")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
