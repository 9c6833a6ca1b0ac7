"""The set-up: every way it can end early, and the parts that keep it quick and exact.

The environment is faked (PATH, configuration, folders), never our own code.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

import archives
import caffe_build
import caffe_source
from lglstm.common.errors import InputError

pytestmark = pytest.mark.skipif(
    not shutil.which("make"),
    reason="needs make and compilers, which the Docker image does not have",
)
REPOSITORY = Path(__file__).resolve().parents[2]
DOWNLOADS = caffe_build.cache_folder() / "downloads"


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, cwd=REPOSITORY, env=os.environ | environment
    )


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence with which a failed step ends."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last


@pytest.fixture
def programs(tmp_path: Path):
    """A function that makes a PATH of fake programs in front of, or instead of, the real ones."""
    folder = tmp_path / "programs"
    folder.mkdir()

    def path(fakes: dict[str, str], real: str = os.environ["PATH"]) -> str:
        for name, script in fakes.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        return f"{folder}:{real}"

    return path


# --- Debian packages -----------------------------------------------------------------------------

NOTHING_INSTALLED = {"dpkg-query": "exit 1"}


def test_another_system_is_sent_to_docker(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text('PRETTY_NAME="Fedora Linux 40"\nID=fedora\nVERSION_ID=40\n')
    said = sentence(run("scripts/setup_debian.sh", OS_RELEASE_FILE=str(release)))
    assert "Fedora Linux 40" in said
    assert "Docker" in said
    assert (REPOSITORY / "docs/install.md").exists()


def test_without_root_and_sudo_the_packages_are_named(programs, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    for tool in ("sh", "dirname", "sed", "cat", "awk", "df", "env"):
        (real / tool).symlink_to(shutil.which(tool))
    path = programs(NOTHING_INSTALLED | {"id": "echo 1000"}, str(real))
    said = sentence(run("/bin/sh", "scripts/setup_debian.sh", PATH=path))
    assert "apt-get install build-essential cmake" in said


def test_full_disk(programs) -> None:
    full = "printf 'Filesystem Blocks Used Available\\n/dev/sda 9 9 10\\n'"
    path = programs(NOTHING_INSTALLED | {"id": "echo 0", "df": full})
    said = sentence(run("scripts/setup_debian.sh", PATH=path))
    assert re.search(r"need \d+ MB of disk space, but only 10 MB are free", said)


@pytest.mark.parametrize(("fails_at", "reason"), [("update", "network"), ("install", "apt")])
def test_apt_that_fails(programs, fails_at: str, reason: str) -> None:
    fake = f'case "$*" in *" {fails_at}"*) exit 100;; esac'
    path = programs(NOTHING_INSTALLED | {"id": "echo 0", "apt-get": fake})
    assert reason in sentence(run("scripts/setup_debian.sh", PATH=path))


# --- Python packages -----------------------------------------------------------------------------


@pytest.mark.slow
def test_python_packages_without_network_or_with_a_wrong_hash(tmp_path: Path) -> None:
    checkout, wheels = tmp_path / "checkout", tmp_path / "wheels"
    shutil.copytree(REPOSITORY / "scripts", checkout / "scripts")
    shutil.copy(REPOSITORY / "pyproject.toml", checkout)
    (checkout / "requirements.lock").write_text("tiny==1.0 --hash=sha256:" + 64 * "0" + "\n")
    wheels.mkdir()
    setup = checkout / "scripts" / "setup_python.sh"
    offline = {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_EXTRA_INDEX_URL": "",
    }
    said = sentence(run(setup, **offline))
    assert "check the network connection" in said

    with zipfile.ZipFile(wheels / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        about = "tiny-1.0.dist-info"
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    said = sentence(run(setup, **offline))
    assert "does not have the hash of requirements.lock" in said


def pins(lock: str) -> dict[str, str]:
    """Package -> version of those that a lock file pins with a hash."""
    text = (REPOSITORY / lock).read_text()
    assert "://" not in text
    return dict(re.findall(r"^([\w.-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}", text, re.M))


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("requirements.lock", ["convert", "checkout"]),
        ("requirements-dev.lock", ["convert", "checkout", "dev"]),
    ],
)
def test_lock_pins_every_dependency_with_hashes_and_names_no_host(
    lock: str, extras: list[str]
) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    missing = {re.match(r"[\w.-]+", name).group() for name in wanted} - set(pins(lock))
    assert not missing, f"run make lock: {missing} not in {lock}"


def test_lock_files_agree_and_users_get_no_tools_of_tests() -> None:
    users, tools = pins("requirements.lock"), pins("requirements-dev.lock")
    assert users.items() <= tools.items()
    assert not users.keys() & {"pytest", "mypy", "ruff", "scikit-learn", "selenium", "distributed"}


# --- Caffe's source ------------------------------------------------------------------------------


def setup_caffe(step: str = "install", **environment: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "scripts/setup_caffe.py", step, **environment)


def test_caffe_source_that_is_no_caffe_tree(tmp_path: Path) -> None:
    said = sentence(setup_caffe(CAFFE_SOURCE=str(tmp_path)))
    assert f"CAFFE_SOURCE={tmp_path}: not a Caffe source tree" in said


def test_missing_compiler(tmp_path: Path) -> None:
    assert "g++ is missing" in sentence(setup_caffe(PATH=str(tmp_path)))


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "set LGLSTM_CACHE" in sentence(setup_caffe("test", LGLSTM_CACHE=str(tmp_path / "file")))


def test_too_little_disk_space(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs 1000000000 MB of disk space, but only \d+ MB"):
        caffe_build.require_space(tmp_path, 10**9)


def test_cuda_needs_an_architecture() -> None:
    assert "CUDA_ARCH" in sentence(setup_caffe(CUDA="1", CUDA_ARCH=""))


@pytest.fixture
def mirror(tmp_path: Path, programs, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Debian mirror on this disk, the only one apt knows, and no archive of old releases."""
    monkeypatch.setenv("PATH", programs({"apt-get": f"echo file://{tmp_path}/mirror"}))
    monkeypatch.setattr(archives, "OLD_RELEASES", ())
    pool = tmp_path / "mirror" / archives.POOL
    pool.mkdir(parents=True)
    return pool


ARCHIVE = archives.Archive(
    "sample.tar.gz", "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
)


def test_download_is_kept_when_its_hash_is_right(mirror: Path, tmp_path: Path) -> None:
    (mirror / ARCHIVE.name).write_text("foo")
    path = archives.fetch(ARCHIVE, tmp_path / "downloads")
    assert path.read_text() == "foo"
    (mirror / ARCHIVE.name).unlink()
    assert archives.fetch(ARCHIVE, tmp_path / "downloads") == path


def test_download_with_a_wrong_hash_is_not_kept(mirror: Path, tmp_path: Path) -> None:
    (mirror / ARCHIVE.name).write_text("fool")
    with pytest.raises(InputError, match=f"has SHA-256 [0-9a-f]+, not {ARCHIVE.sha256}"):
        archives.fetch(ARCHIVE, tmp_path / "downloads")
    assert list((tmp_path / "downloads").iterdir()) == []


def test_cached_download_with_a_wrong_hash(tmp_path: Path) -> None:
    (tmp_path / ARCHIVE.name).write_text("damaged")
    with pytest.raises(InputError, match="delete it and run make setup again"):
        archives.fetch(ARCHIVE, tmp_path)


def test_mirror_that_does_not_answer(mirror: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="could not be fetched .* check the network connection"):
        archives.fetch(ARCHIVE, tmp_path / "downloads")


def repacked(folder: Path, files: dict[str, str], sha256: str = "") -> archives.Repacked:
    """An archive as GitHub makes them, in `folder`; its name is that of Caffe's."""
    name = archives.CAFFE.elsewhere.name
    with tarfile.open(folder / name, "w:gz") as tar:
        for file, text in files.items():
            member = tarfile.TarInfo(f"caffe-1234567/{file}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    made = archives.Repacked(name, sha256, f"file://{folder}/{name}")
    return made if sha256 else replace(made, sha256=archives._digest_of_files(folder / name))


def test_when_the_mirrors_have_nothing_the_files_come_from_the_repository(
    mirror: Path, tmp_path: Path
) -> None:
    files = {"a.txt": "one", "src/b.txt": "two"}
    archive = replace(ARCHIVE, elsewhere=repacked(tmp_path, files))
    path = archives.fetch(archive, tmp_path / "downloads")
    (tmp_path / "tree").mkdir()
    archives.unpack(path, tmp_path / "tree")
    assert (tmp_path / "tree/src/b.txt").read_text() == "two"
    assert sorted(p.name for p in (tmp_path / "tree").iterdir()) == ["a.txt", "src"]
    (tmp_path / path.name).unlink()
    assert archives.fetch(archive, tmp_path / "downloads") == path
    path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="delete it and run make setup again"):
        archives.fetch(archive, tmp_path / "downloads")


def test_the_places_are_tried_in_turn_until_one_has_the_right_files(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {
        "a changed file": {"a.txt": "other"},
        "one file more": {"a.txt": "one", "b.txt": ""},
        "another name": {"b.txt": "one"},
    }
    right = repacked(tmp_path, {"a.txt": "one"}).sha256
    old = [f"file://{tmp_path}/empty", f"file://{tmp_path}/old"]
    monkeypatch.setattr(archives, "OLD_RELEASES", old)
    (mirror / ARCHIVE.name).write_text("another file of that name")
    for k, files in enumerate(changed.values()):
        archive = replace(ARCHIVE, elsewhere=repacked(tmp_path, files, right))
        with pytest.raises(InputError) as caught:
            archives.fetch(archive, tmp_path / f"downloads{k}")
        said = str(caught.value)
        assert "has SHA-256" in said and "has other files than those of" in said
        for place in (f"file://{mirror}", archive.elsewhere.uri, *old):
            assert place in said
    pool = tmp_path / "old" / archives.POOL
    pool.mkdir(parents=True)
    (pool / ARCHIVE.name).write_text("foo")
    assert archives.fetch(archive, tmp_path / "downloads").read_text() == "foo"


@pytest.mark.parametrize("damage", ["no archive", "cut short", "a link"])
def test_a_damaged_archive_of_the_repository_is_refused(
    mirror: Path, tmp_path: Path, damage: str
) -> None:
    elsewhere = repacked(tmp_path, {"a.txt": "one" * 10_000})
    path = tmp_path / elsewhere.name
    if damage == "a link":
        with tarfile.open(path, "w:gz") as tar:
            member = tarfile.TarInfo("caffe-1234567/a.txt")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member)
    else:
        path.write_bytes(path.read_bytes()[:60] if damage == "cut short" else b"<html>")
    with pytest.raises(InputError, match="is no archive that can be read"):
        archives.fetch(replace(ARCHIVE, elsewhere=elsewhere), tmp_path / "downloads")


def test_the_repositorys_archive_of_the_commit_has_the_files_of_debians(tmp_path: Path) -> None:
    """Debian's is that commit as `git archive` writes it; here it is put into a folder."""
    if not (DOWNLOADS / archives.CAFFE.name).exists():
        pytest.skip(f"needs Caffe's source in {DOWNLOADS}: run make setup")
    with tarfile.open(DOWNLOADS / archives.CAFFE.name) as tar:
        assert tar.pax_headers["comment"] == archives.COMMIT
    tree = tmp_path / f"caffe-{archives.COMMIT}"
    tree.mkdir()
    archives.unpack(DOWNLOADS / archives.CAFFE.name, tree)
    packed = tmp_path / "downloads" / archives.CAFFE.elsewhere.name
    packed.parent.mkdir()
    assert run("tar", "-C", tmp_path, "-czf", packed, tree.name).returncode == 0
    assert archives.fetch(archives.CAFFE, packed.parent) == packed
    (tmp_path / "again").mkdir()
    archives.unpack(packed, tmp_path / "again")
    assert run("diff", "-r", tree, tmp_path / "again").stdout == ""


def test_patch_is_applied_once_and_only_where_it_fits(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.txt").write_text("one\ntwo\nthree\n")
    patch = tmp_path / "01.patch"
    patch.write_text("--- a/a.txt\n+++ b/a.txt\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n")
    assert caffe_source.apply_patch(patch, tree)
    assert caffe_source.apply_patch(patch, tree)
    assert (tree / "a.txt").read_text() == "one\n2\nthree\n"
    (tree / "a.txt").write_text("quite different\n")
    assert not caffe_source.apply_patch(patch, tree)
    assert [(path.name, path.read_text()) for path in tree.iterdir()] == [
        ("a.txt", "quite different\n")
    ]


def test_users_tree_may_have_our_patches_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (DOWNLOADS / caffe_source.CAFFE.name).exists():
        pytest.skip(f"needs Caffe's source in {DOWNLOADS}: run make setup")
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    caffe_source.assemble(first, None, DOWNLOADS)
    (first / "build").mkdir()
    (first / "build" / "old.o").touch()
    monkeypatch.setenv("CAFFE_SOURCE", str(first))
    caffe_source.assemble(second, caffe_source.own_tree(), DOWNLOADS)
    assert not (second / "build").exists()
    assert "LGLSTMParameter" in (second / "src/caffe/proto/caffe.proto").read_text()
    shutil.rmtree(first / "build")
    differing = run("diff", "-rq", first, second).stdout
    assert differing == ""


def test_synchronize_touches_only_what_changed(tmp_path: Path) -> None:
    wanted, tree = tmp_path / "wanted", tmp_path / "tree"
    (wanted / "src").mkdir(parents=True)
    for name in ("kept.cpp", "changed.cpp", "removed.cpp"):
        (wanted / "src" / name).write_text(name)
    assert caffe_source.synchronize(wanted, tree)
    for path in tree.rglob("*.cpp"):
        os.utime(path, (1, 1))
    (tree / "generated.py").touch()  # by the build
    (wanted / "src" / "changed.cpp").write_text("changed")
    assert not caffe_source.synchronize(wanted, tree)
    assert (tree / "src/kept.cpp").stat().st_mtime == 1
    assert (tree / "src/changed.cpp").stat().st_mtime > 1
    assert (tree / "src/changed.cpp").read_text() == "changed"
    (wanted / "src" / "removed.cpp").unlink()
    assert caffe_source.synchronize(wanted, tree)
    left = {path.name for path in tree.rglob("*") if path.is_file()}
    assert left == {"kept.cpp", "changed.cpp", "generated.py"}


def test_users_tree_may_have_its_own_repairs_of_pycaffe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (DOWNLOADS / caffe_source.CAFFE.name).exists():
        pytest.skip(f"needs Caffe's source in {DOWNLOADS}: run make setup")
    tree, assembled = tmp_path / "tree", tmp_path / "assembled"
    tree.mkdir()
    assembled.mkdir()
    caffe_source.unpack(DOWNLOADS / caffe_source.CAFFE.name, tree)
    loader = tree / "python/caffe/io.py"
    own = loader.read_text().replace("as_grey=not color", "as_gray=not color")
    loader.write_text(own)
    monkeypatch.setenv("CAFFE_SOURCE", str(tree))
    caffe_source.assemble(assembled, caffe_source.own_tree(), DOWNLOADS)
    assert (assembled / "python/caffe/io.py").read_text() == own
    assert "06-pycaffe-current-packages.patch does not fit" in capsys.readouterr().err
    assert "count_gpus" in (assembled / "tools/caffe.cpp").read_text()


def test_every_patch_is_in_the_index_and_says_why_it_is_needed() -> None:
    patches = caffe_source.our_patches()
    index = (caffe_source.OVERLAY / "patches" / "README.md").read_text()
    assert re.findall(r"^\| `([^`]+)` \|", index, re.M) == [patch.stem for patch in patches]
    assert {patch.name for patch in patches} >= caffe_source.OPTIONAL_PATCHES
    assert [patch.name[:2] for patch in patches] == [f"{i:02}" for i in range(1, len(patches) + 1)]
    for patch in patches:
        assert not patch.read_text().startswith("---"), f"{patch.name} says nothing of itself"


# --- Caffe's build and installation --------------------------------------------------------------


def test_a_change_of_ours_makes_another_installation_of_the_same_build(tmp_path: Path) -> None:
    (tmp_path / "layer.cpp").write_text("int one;")
    tools = {"cmake_flags": ["-DCPU_ONLY=ON"], "compiler": "g++ 12"}

    def settings(**changed: object) -> caffe_build.BuildSettings:
        files = {"source": "Debian", "overlay_sha256": caffe_source.tree_digest(tmp_path)}
        return caffe_build.BuildSettings(None, tools | changed, files)

    before = settings()
    (tmp_path / "layer.cpp").write_text("int two;")
    after, other_compiler = settings(), settings(compiler="g++ 13")
    assert before.build_key == after.build_key != other_compiler.build_key
    assert before.install_key != after.install_key
    (tmp_path / "layer.cpp").rename(tmp_path / "renamed.cpp")
    assert settings().install_key != after.install_key


@pytest.fixture
def building(tmp_path: Path, programs):
    """A function that runs the set-up's C++ tests with a `ninja` that is a shell script."""
    if not (DOWNLOADS / caffe_source.CAFFE.name).exists():
        pytest.skip(f"needs Caffe's source in {DOWNLOADS}: run make setup")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "downloads").symlink_to(DOWNLOADS)

    def build(ninja: str, stderr: int = subprocess.PIPE) -> tuple[int, str, str, Path]:
        path = programs({"cmake": "exit 0", "ninja": ninja})
        done = subprocess.run(
            [sys.executable, "scripts/setup_caffe.py", "test"],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=REPOSITORY,
            env=os.environ | {"PATH": path, "LGLSTM_CACHE": str(cache)},
        )
        [log] = cache.glob("caffe/*/compile.log")
        return done.returncode, done.stdout, done.stderr or "", log

    return build


COMPILED = """
for step in 1 2 3; do
    echo "${NINJA_STATUS}" | sed "s,%f/%t,$step/3,; s,$,Building CXX object $step.o,"
    echo "$step.cpp:1:1: warning: a lot of noise"
done
mkdir -p "$2/test" && printf '#!/bin/sh\\nexit 0' >"$2/test/$3" && chmod +x "$2/test/$3"
"""


def test_compiler_output_goes_to_a_log_and_the_screen_shows_the_steps(building) -> None:
    status, out, err, log = building(COMPILED)
    assert (status, out, err) == (0, "", "Caffe 1/3\n")  # the next line half a minute later
    assert log.read_text().count("a lot of noise") == 3


def test_on_a_terminal_one_line_shows_the_steps(building) -> None:
    screen, terminal = os.openpty()
    status, out, _, _ = building(COMPILED, stderr=terminal)
    os.close(terminal)
    assert (status, out) == (0, "")
    assert os.read(screen, 10000) == b"\rCaffe 1/3 \rCaffe 2/3 \rCaffe 3/3 \r\x1b[K"
    os.close(screen)


def test_failed_compilation_shows_the_first_error_and_names_the_log(building) -> None:
    status, _, err, log = building("""
echo "${NINJA_STATUS}1.o"
echo "FAILED: first.o"
echo "/usr/bin/c++ with very many options"
seq 100 | sed 's/^/first.cpp: warning /'
echo "first.cpp:7:2: error: the reason"
echo "    7 | line"
echo "${NINJA_STATUS}2.o"
echo "FAILED: second.o"
exit 1""")
    assert status == 1
    lines = err.splitlines()
    assert lines[1] == "FAILED: first.o"  # after the step
    assert lines[-3:-1] == ["first.cpp:7:2: error: the reason", "    7 | line"]
    assert "very many options" not in err
    assert "second" not in err
    assert len(lines) < 20
    assert lines[-1].startswith("error: Caffe could not be compiled")
    assert str(log) in lines[-1]
    assert "first.cpp: warning 1\n" in log.read_text()


def test_install_replaces_whole_files(tmp_path: Path) -> None:
    installation, prefix = tmp_path / "installation", tmp_path / "venv"
    record = installation / caffe_build.RECORD
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"key": "one"}))
    (installation / "lib").mkdir()
    (installation / "lib" / "libcaffe.so.1.0.0").write_text("new")
    (installation / "lib" / "libcaffe.so").symlink_to("libcaffe.so.1.0.0")
    (prefix / "lib").mkdir(parents=True)
    (prefix / "lib" / "libcaffe.so.1.0.0").write_text("old")
    running = (prefix / "lib" / "libcaffe.so.1.0.0").open()
    assert caffe_build.installed_key(prefix) is None
    caffe_build.install(installation, prefix)
    assert caffe_build.installed_key(prefix) == "one"
    assert running.read() == "old"
    assert (prefix / "lib" / "libcaffe.so").read_text() == "new"
    caffe_build.install(installation, prefix)  # over itself, as after an interrupted call


def test_interrupted_install_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    installation, prefix = tmp_path / "installation", tmp_path / "venv"
    for folder, key in ((installation, "new"), (prefix, "old")):
        record = folder / caffe_build.RECORD
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps({"key": key}))
    (installation / "lib").mkdir()
    (installation / "lib" / "libcaffe.so").write_text("new")
    (prefix / "lib").touch()  # in the way: copying ends in an error
    with pytest.raises(OSError):
        caffe_build.install(installation, prefix)
    assert caffe_build.installed_key(prefix) is None


@pytest.mark.slow
def test_caffe_command_finds_its_environment_without_activation(tmp_path: Path) -> None:
    (tmp_path / "witness.py").write_text("""
import sys
import caffe
import numpy

class Witness(caffe.Layer):
    def setup(self, bottom, top):
        open(self.param_str, "w").write(sys.prefix)

    def reshape(self, bottom, top):
        top[0].reshape(1)

    def forward(self, bottom, top):
        top[0].data[...] = numpy.float32(1)

    def backward(self, top, propagate_down, bottom):
        pass
""")
    (tmp_path / "net.prototxt").write_text(f"""
layer {{
  name: "w" type: "Python" top: "w"
  python_param {{ module: "witness" layer: "Witness" param_str: "{tmp_path}/prefix" }}
}}
""")
    (tmp_path / "caffe").symlink_to(Path(sys.prefix) / "bin" / "caffe")
    done = subprocess.run(
        [tmp_path / "caffe", "time", "-model", tmp_path / "net.prototxt", "-iterations", "1"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "prefix").read_text() == sys.prefix


# --- The commands --------------------------------------------------------------------------------


def test_make_without_target_lists_the_targets() -> None:
    listing = run("make").stdout
    for target in ("setup", "demo", "test", "test-caffe", "lint", "lock", "clean"):
        assert re.search(rf"^make {target} +\S", listing, re.MULTILINE)
