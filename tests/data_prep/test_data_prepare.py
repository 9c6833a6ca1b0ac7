"""The shared writer: restarts, dead workers, full disks, Dask, and what it refuses."""

import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from data_help import files_below

from lglstm.common.errors import InputError
from lglstm.common.images import read_label
from lglstm.common.labels import label_set
from lglstm.common.parallel import stream
from lglstm.data_prep.prepare import Converted, DataSet, LabeledImage, Task, prepare
from lglstm.layers.seg_list import read_list

SHAPE = (7, 9)


@dataclass(frozen=True)
class Job:
    """What `convert` does: note that it ran, wait, fail, or kill its process (once or always)."""

    number: int
    notes: Path
    seconds: float = 0.0
    fault: str = ""


def convert(job: Job) -> Converted:
    with (job.notes / f"{job.number}").open("a") as file:
        file.write("ran\n")
    time.sleep(job.seconds)
    ran = (job.notes / f"{job.number}").read_text().count("ran")
    if job.fault == "bad":
        raise InputError(f"photo {job.number}: is spoilt; fetch it again")
    if job.fault == "kills" or (job.fault == "kills once" and ran == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    image = np.full((*SHAPE, 3), job.number, np.uint8)
    return Converted(
        [LabeledImage(f"e_{job.number}", image, np.full(SHAPE, 1, np.uint8))], {"seen": 1}
    )


def data_set(notes: Path, count: int = 8, seconds: float = 0.0, **faults: list[int]) -> DataSet:
    notes.mkdir(exist_ok=True)
    fault = {k: name.replace("_", " ") for name, listed in faults.items() for k in listed}
    jobs = [Job(k, notes, seconds, fault.get(k, "")) for k in range(count)]
    return DataSet(
        name="jobs",
        labels=label_set("horse"),
        splits={str(k): "train" if k % 2 else "test" for k in range(count)},
        tasks=lambda: (Task(str(job.number), job) for job in jobs),
        convert=convert,
    )


def runs(notes: Path) -> dict[int, int]:
    return {int(path.name): path.read_text().count("ran") for path in notes.iterdir()}


def assert_whole(root: Path, numbers) -> None:
    """Every file of these examples is there and sound, and nothing else but lists and journal."""
    expected = {f"{kind}/e_{k}.png" for kind in ("images", "labels") for k in numbers}
    found = files_below(root)
    assert found - expected <= {
        "train.txt",
        "test.txt",
        "dataset.json",
        "prepared.jsonl",
        "skipped.txt",
    }
    assert expected <= found
    for k in numbers:
        assert (read_label(root / f"labels/e_{k}.png") == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_lists_are_in_the_order_of_the_plan_whatever_finishes_first(tmp_path, workers):
    summary = prepare(data_set(tmp_path / "notes", 9), tmp_path / "set", workers=workers)
    assert summary["examples"] == {"train": 4, "test": 5} and summary["counts"] == {"seen": 9}
    lines = [f"images/e_{k}.png labels/e_{k}.png\n" for k in range(9)]
    assert (tmp_path / "set/test.txt").read_text() == "".join(lines[0::2])
    assert (tmp_path / "set/train.txt").read_text() == "".join(lines[1::2])
    assert_whole(tmp_path / "set", range(9))


def test_a_second_run_does_only_what_is_missing(tmp_path):
    notes, root = tmp_path / "notes", tmp_path / "set"
    with pytest.raises(InputError, match="photo 5: is spoilt"):
        prepare(data_set(notes, bad=[5]), root, workers=1)
    assert not (root / "dataset.json").exists() and not (root / "train.txt").exists()
    (root / "images/e_2.png").unlink()
    (root / "labels/e_3.png").write_bytes(b"")
    label = root / "labels/e_4.png"
    label.write_bytes(label.read_bytes()[:-20] + bytes(20))  # as a power cut may leave it
    prepare(data_set(notes), root, workers=1)
    assert_whole(root, range(8))
    assert runs(notes) == {0: 1, 1: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 1, 7: 1}
    prepare(data_set(notes), root, workers=1)
    assert sum(runs(notes).values()) == 12


@pytest.mark.slow
def test_kill_9_half_way_leaves_whole_files_and_a_run_that_goes_on(tmp_path):
    notes, root = tmp_path / "notes", tmp_path / "set"
    script = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "from test_data_prepare import *\n"
        "if __name__ == '__main__':\n"
        "    prepare(data_set(Path(sys.argv[1]), 30, seconds=0.02), sys.argv[2], workers=1)\n"
    )
    arguments = [
        sys.executable,
        "-c",
        script,
        str(notes),
        str(root),
        *map(str, Path(__file__).parents[:2]),
    ]
    process = subprocess.Popen(arguments)
    journal = root / "prepared.jsonl"
    while not (journal.exists() and len(journal.read_text().splitlines()) > 8):
        time.sleep(0.01)
        assert process.poll() is None
    process.kill()
    process.wait()
    finished = journal.read_text()
    assert not (root / "dataset.json").exists()
    journal.write_text(finished + '{"task": "9", "fi')  # as if it had died while writing
    (root / "labels/.lglstm-x7k2m9qa.png").write_bytes(b"half")
    prepare(data_set(notes, 30, seconds=0.02), root, workers=1)
    assert_whole(root, range(30))
    assert sum(runs(notes).values()) <= 31


def test_skip_bad_goes_on_and_a_later_run_tries_again(tmp_path):
    notes, root = tmp_path / "notes", tmp_path / "set"
    summary = prepare(data_set(notes, bad=[2, 3]), root, workers=1, skip_bad=True)
    assert summary["skipped"] == 2 and summary["examples"] == {"train": 3, "test": 3}
    assert (root / "skipped.txt").read_text() == (
        "2\tphoto 2: is spoilt; fetch it again\n3\tphoto 3: is spoilt; fetch it again\n"
    )
    assert prepare(data_set(notes), root, workers=1)["skipped"] == 0
    assert not (root / "skipped.txt").exists()
    assert_whole(root, range(8))


@pytest.mark.slow
def test_a_file_that_kills_its_reader_is_found_and_a_worker_killed_once_loses_nothing(tmp_path):
    notes = tmp_path / "notes"
    faulty = data_set(notes, 10, kills=[4], kills_once=[7])
    summary = prepare(faulty, tmp_path / "set", workers=2, skip_bad=True)
    assert summary["skipped"] == 1 and sum(summary["examples"].values()) == 9
    assert (tmp_path / "set/skipped.txt").read_text().startswith("4\t4: the process that read it")
    assert_whole(tmp_path / "set", set(range(10)) - {4})


def test_folders_with_something_else_in_them_are_left_alone(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    (root / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="set: is not empty; choose a new folder"):
        prepare(data_set(tmp_path / "notes"), root, workers=1)
    (root / "thesis.tex").unlink()
    prepare(data_set(tmp_path / "notes"), root, workers=1)
    with pytest.raises(InputError, match="was prepared from another source or with other options"):
        prepare(data_set(tmp_path / "notes", 9), root, workers=1)
    with pytest.raises(InputError, match="notes/1: is a file; name a folder"):
        prepare(data_set(tmp_path / "notes"), tmp_path / "notes/1", workers=1)


def test_hidden_files_of_the_user_stay(tmp_path):
    root = tmp_path / "set"
    with pytest.raises(InputError):
        prepare(data_set(tmp_path / "notes", bad=[5]), root, workers=1)
    mine = [
        ".gitignore",
        ".git/config",
        "images/.keep",
        "labels/.lglstm-notes",
        ".e_9.x7k2m9qa.png",
    ]
    for name in mine:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("mine")
    (root / "images/.lglstm-x7k2m9qa.png").write_bytes(b"half")
    prepare(data_set(tmp_path / "notes"), root, workers=1)
    assert {(root / name).read_text() for name in mine} == {"mine"}
    assert not (root / "images/.lglstm-x7k2m9qa.png").exists()


@pytest.mark.slow
def test_a_run_that_was_killed_in_its_first_journal_goes_on(tmp_path):
    root = tmp_path / "set"
    script = (
        "import os, signal, sys; sys.path[:0] = sys.argv[3:]\n"
        "from test_data_prepare import *\n"
        "os.replace = os.rename = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)\n"
        "prepare(data_set(Path(sys.argv[1])), sys.argv[2], workers=1)\n"
    )
    folders = map(str, Path(__file__).parents[:2])
    arguments = [sys.executable, "-c", script, tmp_path / "notes", root, *folders]
    assert subprocess.run(arguments).returncode == -signal.SIGKILL
    assert len(list(root.iterdir())) == 2  # its lock, and the journal that has no name yet
    prepare(data_set(tmp_path / "notes"), root, workers=1)
    assert_whole(root, range(8))


def test_two_runs_into_one_folder_exclude_each_other(tmp_path):
    def run_again(done: int, total: int) -> None:
        with pytest.raises(InputError, match=f"process {os.getpid()} .* is writing there; wait"):
            prepare(data_set(tmp_path / "notes"), tmp_path / "set", workers=1)

    prepare(data_set(tmp_path / "notes"), tmp_path / "set", workers=1, on_progress=run_again)
    assert_whole(tmp_path / "set", range(8))


def named(name: str) -> DataSet:
    """A set of one example with this name."""
    example = LabeledImage(name, np.zeros((*SHAPE, 3), np.uint8), np.full(SHAPE, 1, np.uint8))
    return DataSet(
        name="odd",
        labels=label_set("horse"),
        splits={name: "train"},
        tasks=lambda: [Task(name, None)],
        convert=lambda _: Converted([example]),
    )


@pytest.mark.parametrize("name", ["café", "馬 (1)", "-a", "n" * 251, "x[y]", "a  b", "50%"])
def test_photos_may_have_any_name_that_fits_into_a_list(tmp_path, name):
    prepare(named(name), tmp_path, workers=1)
    (example,) = read_list(tmp_path / "train.txt")
    assert example.photo == str(tmp_path / f"images/{name}.png")
    assert (read_label(example.label) == 1).all()


@pytest.mark.parametrize("name", ["n" * 252, "é" * 126, "caf\udce9", "a\tb", "a\u2028b"])
def test_other_names_are_bad_inputs_that_can_be_left_out(tmp_path, name):
    with pytest.raises(InputError, match="cannot name a file of a data set"):
        prepare(named(name), tmp_path / "set", workers=1)
    summary = prepare(named(name), tmp_path / "set", workers=1, skip_bad=True)
    assert summary["skipped"] == 1
    assert "cannot name a file" in (tmp_path / "set/skipped.txt").read_text()


def test_names_that_lead_elsewhere_are_refused(tmp_path):
    for name in ("../evil", "/etc/evil", "a/b", "", ".hidden", "a\nb"):
        strange = data_set(tmp_path / "notes", 1)
        example = LabeledImage(name, np.zeros((*SHAPE, 3), np.uint8), np.zeros(SHAPE, np.uint8))
        strange = DataSet(**{**strange.__dict__, "convert": lambda job, e=example: Converted([e])})
        with pytest.raises(InputError, match="cannot name a file"):
            prepare(strange, tmp_path / f"set{len(name)}{name.count('/')}", workers=1)
    assert not list(tmp_path.rglob("*evil*"))


def test_sources_that_turn_out_incomplete_are_named(tmp_path):
    short = data_set(tmp_path / "notes", 4)
    short = DataSet(**{**short.__dict__, "splits": {**short.splits, "9": "train"}})
    with pytest.raises(InputError, match="1 of 5 examples were not found in the source, first '9'"):
        prepare(short, tmp_path / "set", workers=1)


def test_a_full_disk_ends_in_one_sentence_and_no_half_file(tmp_path):
    """The kernel refuses to let any file grow beyond 1 KB, as a full disk would."""
    big = LabeledImage(
        "big",
        np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8),
        np.zeros((60, 60), np.uint8),
    )
    full = DataSet(
        **{**data_set(tmp_path / "notes", 1).__dict__, "convert": lambda job: Converted([big])}
    )
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        with pytest.raises(
            InputError, match=r"big\.png: cannot be written .* check the free space"
        ):
            prepare(full, tmp_path / "set", workers=1, skip_bad=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files_below(tmp_path / "set") == {"prepared.jsonl"}


def test_a_folder_without_permission_ends_in_one_sentence(tmp_path):
    jobs = data_set(tmp_path / "notes")
    tmp_path.chmod(0o500)
    if os.geteuid() == 0:  # root may write everywhere, nobody may not
        os.seteuid(65534)
    try:
        with pytest.raises(InputError, match=r"set\b.*: cannot be (used|written) .*[Pp]ermission"):
            prepare(jobs, tmp_path / "set", workers=1)
    finally:
        os.seteuid(os.getuid())


def test_the_stream_keeps_few_items_in_flight(tmp_path):
    taken = []

    def items():
        for k in range(100):
            taken.append(k)
            yield k

    results = stream(abs, items(), workers=2)
    assert next(results) == (0, 0) or taken
    assert len(taken) <= 12
    results.close()


@pytest.mark.slow
def test_dask_loses_nothing_when_a_worker_is_killed_half_way(tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs the package 'distributed'")
    notes, root = tmp_path / "notes", tmp_path / "set"
    cluster = distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=":0",
        local_directory=str(tmp_path),
        silence_logs="CRITICAL",
    )
    with cluster:
        victim = next(iter(cluster.workers.values())).process.pid
        killed = []

        def kill_half_way(done, total):
            if done == total // 2 and not killed:
                killed.append(os.kill(victim, signal.SIGKILL))

        summary = prepare(
            data_set(notes, 40, seconds=0.02),
            root,
            scheduler=cluster.scheduler_address,
            on_progress=kill_half_way,
        )
    assert killed and summary["examples"] == {"train": 20, "test": 20}
    assert_whole(root, range(40))


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_is_named(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="needs the package 'distributed'")
    monkeypatch.setattr("lglstm.common.parallel.CONNECT_SECONDS", 0.5)
    with pytest.raises(InputError, match="tcp://127.0.0.1:9: no Dask scheduler answers there"):
        prepare(data_set(tmp_path / "notes"), tmp_path / "set", scheduler="tcp://127.0.0.1:9")
