"""Data sets of one's own: folders of photos and label maps of every kind, their split, mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lglstm.cli.main import main
from lglstm.common.images import read_label, read_photo
from lglstm.common.labels import label_set
from lglstm.layers.seg_list import read_list

COUNT, SIZE = 10, (12, 18)
NAMES = ("ground", "leaf", "stem")
RGB = np.array([[255, 255, 255], [0, 128, 0], [90, 40, 20]], np.uint8)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def truth(k: int) -> np.ndarray:
    """The ids of example k: a ground with a leaf and a stem, a few pixels unknown."""
    ids = np.zeros(SIZE, np.uint8)
    ids[2:8, 2 + k % 4 : 9] = 1
    ids[8:, 5] = 2
    ids[0, :3] = 255
    return ids


def photos(count: int = COUNT, suffix: str = "jpg") -> list[np.ndarray]:
    """Write photos 0 … count - 1; return the truth of each."""
    rng = np.random.default_rng(1)
    Path("photos").mkdir()
    for k in range(count):
        pixels = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{k}.{suffix}")
    return [truth(k) for k in range(count)]


def save(kind: str, k: int, ids: np.ndarray, suffix: str = "") -> None:
    """Write a label map in one of the forms that people have."""
    Path("maps").mkdir(exist_ok=True)
    if kind == "gray":
        picture = Image.fromarray(ids)
    elif kind == "palette":
        picture = Image.fromarray(ids)
        picture.putpalette(label_set("voc").palette.tobytes())
    elif kind == "16 bit":
        picture = Image.fromarray(ids.astype(np.uint16))
    elif kind == "colors":
        picture = Image.fromarray(
            np.vstack([RGB, [[1, 2, 3]]]).astype(np.uint8)[np.minimum(ids, 3)]
        )
    elif kind == "mask":
        picture = Image.fromarray(np.where(ids == 1, 255, 0).astype(np.uint8))
    elif kind == "color mask":
        picture = Image.fromarray(np.where(ids == 1, 255, 0).astype(np.uint8)).convert("RGB")
    elif kind == "1 bit":
        picture = Image.fromarray(ids == 1)
    picture.save(f"maps/{k}{suffix}.png")


def pairs(*options: str, code: int = 0) -> Any:
    """Run `lglstm data pairs`; return the summary, or the only line that a mistake gets."""
    command = ["data", "pairs", "photos", "maps", "set", "--workers", "1", "--json", *options]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == code, done.output
    if code:
        assert not Path("set/dataset.json").exists()
        return done.stderr.splitlines()[-1]
    return json.loads(done.stdout)


def result() -> dict[str, np.ndarray]:
    """Photo's stem → label map of the whole prepared set, whose photos can be read, too."""
    found = {}
    for path in Path("set").glob("*.txt"):
        for example in read_list(path):
            assert read_photo(example.photo).shape == (*SIZE, 3)
            found[Path(example.photo).stem] = read_label(example.label)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gray", "palette", "16 bit"])
def test_maps_of_ids(kind):
    truths = photos()
    for k, ids in enumerate(truths):
        save(kind, k, ids)
    Path("plants.json").write_text(json.dumps({"name": "plants", "names": NAMES}))
    summary = pairs("--labels", "plants.json")
    assert summary["examples"] == {"train": 8, "test": 2}
    assert summary["label_set"]["names"] == list(NAMES)
    found = result()
    assert all((found[str(k)] == ids).all() for k, ids in enumerate(truths))
    assert Path("set/images/3.jpg").read_bytes() == Path("photos/3.jpg").read_bytes()
    with Image.open("set/labels/3.png") as written:
        palette = np.array(written.getpalette()).reshape(-1, 3)[:3]
    assert palette.tolist() == summary["label_set"]["colors"]
    checked = CliRunner().invoke(main, ["data", "check", "set", "--sheet", "sheet.png", "--json"])
    assert checked.exit_code == 0 and Path("sheet.png").is_file()
    assert [c["name"] for c in json.loads(checked.stdout)["classes"]] == [*NAMES, "ignore"]


@pytest.mark.parametrize("kind", ["mask", "color mask", "1 bit"])
def test_masks_of_one_object(kind):
    truths = photos(suffix="png")
    for k, ids in enumerate(truths):
        save(kind, k, ids, suffix="_mask")
    summary = pairs("--binary", "--suffix", "_mask")
    assert summary["label_set"]["names"] == ["background", "object"]
    found = result()
    assert all((found[str(k)] == (ids == 1)).all() for k, ids in enumerate(truths))


def test_maps_in_colors():
    truths = photos(suffix="webp")
    for k, ids in enumerate(truths):
        save("colors", k, ids)
    colors = dict(zip(NAMES, RGB.tolist(), strict=True)) | {"ignore": [1, 2, 3]}
    Path("plants.json").write_text(json.dumps(colors))
    summary = pairs("--colors", "plants.json")
    assert (summary["label_set"]["name"], summary["label_set"]["names"]) == ("plants", list(NAMES))
    found = result()
    assert all((found[str(k)] == ids).all() for k, ids in enumerate(truths))


def test_another_id_can_mean_unknown():
    for k, ids in enumerate(photos()):
        save("gray", k, np.where(ids == 255, 0, ids))
    pairs("--classes", "3", "--ignore", "2")
    assert all(set(np.unique(ids)) == {0, 1, 255} for ids in result().values())


def test_the_split_depends_on_names_and_seed_alone():
    def lists() -> dict[str, str]:
        return {path.name: path.read_text() for path in sorted(Path("set").glob("*.txt"))}

    for k, ids in enumerate(photos(20)):
        save("gray", k, ids)
    shares = ("--classes", "3", "--val-share", "0.1", "--test-share", "0.25")
    summary = pairs(*shares)
    assert summary["examples"] == {"train": 13, "val": 2, "test": 5}
    first = lists()
    Path("set").rename("before")
    pairs(*shares, "--seed", "1")
    other = lists()
    Path("set").rename("other")
    pairs(*shares)
    assert lists() == first != other
    Path("set").rename("again")
    for split, names in (("train", "0 1 2"), ("test", "3 4")):
        Path(f"{split}.txt").write_text("\n".join(names.split()))
    summary = pairs("--classes", "3", "--train", "train.txt", "--test", "test.txt")
    assert summary["examples"] == {"train": 3, "test": 2}


def test_a_photo_without_a_label_map_is_left_out_and_told():
    for k, ids in enumerate(photos()[:7]):
        save("gray", k, ids)
    summary = pairs("--classes", "3")
    assert sum(summary["examples"].values()) == 7
    assert summary["notes"] == ["3 photos have no label map and are left out"]


def test_photos_and_maps_may_lie_in_one_folder():
    for k, ids in enumerate(photos(suffix="png")):
        save("gray", k, ids, suffix="_ids")
    for path in Path("maps").iterdir():
        path.rename(Path("photos") / path.name)
    Path("maps").rmdir()
    Path("maps").symlink_to("photos")
    command = ["data", "pairs", "photos", "photos", "set", "--suffix", "_ids", "--classes", "3"]
    assert CliRunner().invoke(main, [*command, "--workers", "1"]).exit_code == 0
    assert len(result()) == COUNT


def test_a_corrected_label_map_arrives():
    for k, ids in enumerate(photos()):
        save("gray", k, ids)
    pairs("--classes", "3")
    save("gray", 4, 2 - np.minimum(truth(4), 2))
    before = Path("set/labels/3.png").stat().st_mtime_ns
    pairs("--classes", "3")
    assert (result()["4"] == 2 - np.minimum(truth(4), 2)).all()
    assert Path("set/labels/3.png").stat().st_mtime_ns == before, "done again without need"


def test_names_with_spaces_capitals_and_other_suffixes():
    """Photos as cameras and people name them, and lists of them."""
    for k, ids in enumerate(photos(3, suffix="webp")):
        save("gray", k, ids, suffix="_Mask")
    for folder, ending in (("photos", ".webp"), ("maps", "_Mask.png")):
        for k, name in enumerate(("one two", "three", "FOUR")):
            Path(f"{folder}/{k}{ending}").rename(f"{folder}/{name}{ending.replace('png', 'PNG')}")
    Path("train.txt").write_text("one two\nphotos/three.webp\n")
    Path("test.txt").write_text("FOUR.webp\tthe last\n")
    options = ("--classes", "3", "--suffix", "_mask")
    summary = pairs(*options, "--train", "train.txt", "--test", "test.txt")
    assert summary["examples"] == {"train": 2, "test": 1}
    assert result().keys() == {"one two", "three", "FOUR"}


def test_a_run_continues_only_with_the_same_classes():
    for k, ids in enumerate(photos()):
        save("gray", k, ids)
    pairs("--classes", "3")
    pairs("--classes", "3")
    Path("set/dataset.json").unlink()
    assert "prepared from another source or with other options" in pairs("--classes", "4", code=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "say what the ids mean: --labels, --classes, --binary or --colors"),
        (("--classes", "3", "--binary"), "--classes names nothing"),
        (("--binary", "--colors", "c.json"), "--binary and --colors exclude each other"),
        (
            ("--binary", "--labels", "horse"),
            "the label set horse has 5",
        ),
        (("--classes", "2"), "maps/0.png: ids 2 (4 pixels) are outside the 2 classes"),
        (("--binary",), "maps/0.png: is not a mask of 0 and 255; it also has 1, 2"),
        (("--classes", "3", "--ignore", "7"), "maps/0.png: ids 255 (3 pixels) are outside"),
        (("--classes", "3", "--suffix", "_mask"), "a file whose name ends in _mask.png"),
        (("--classes", "3", "--test-share", "0.95"), "too few to keep test apart"),
        (("--colors", "missing.json"), "missing.json: there is no such file"),
        (
            ("--colors", "c.json"),
            "maps/0.png: 170 of its pixels have colors that",
        ),
        (("--colors", "bad.json"), 'bad.json: the color of "leaf" is [0, 1]; it must be'),
        (("--colors", "same.json"), "same.json: two classes have the color [1, 2, 3]"),
        (("--colors", "c.json", "--labels", "lip"), 'c.json: "leaf" is no class of the label set'),
    ],
)
def test_mistakes_get_one_sentence(options, words):
    for k, ids in enumerate(photos()):
        save("gray", k, ids)
    Path("c.json").write_text('{"leaf": [1, 1, 1], "stem": [2, 2, 2]}')
    Path("bad.json").write_text('{"leaf": [0, 1], "stem": [2, 2, 2]}')
    Path("same.json").write_text('{"leaf": [1, 2, 3], "stem": [1, 2, 3]}')
    assert words in pairs(*options, code=1)


def test_folders_that_do_not_fit():
    for k, ids in enumerate(photos()):
        save("gray", k, ids)
    Path("photos/3.jpg").rename("3.jpg")
    assert "maps/3.png: there is no photo 3 in photos" in pairs("--classes", "3", code=1)
    Image.new("RGB", (5, 4)).save("photos/3.png")
    assert "maps/3.png: is 18 × 12 pixels, its photo" in pairs("--classes", "3", code=1)
    Path("3.jpg").rename("photos/3.jpg")
    assert "3.jpg and 3.png have the same name" in pairs("--classes", "3", code=1)
    Path("photos").rename("elsewhere")
    assert "photos: is not a folder" in pairs("--classes", "3", code=1)
