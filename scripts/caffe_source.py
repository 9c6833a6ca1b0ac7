"""Caffe's source tree: fetched and checked, or the user's own, with our patches and overlay.

Only our own files are in this repository (`layers/caffe`). Caffe comes from Debian's source
package, from the mirror that apt uses on this machine; every byte is checked before use.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lglstm.common.errors import InputError
from lglstm.common.hashing import sha256_of

REPOSITORY = Path(__file__).resolve().parent.parent
OVERLAY = REPOSITORY / "layers" / "caffe"
POOL = "pool/main/c/caffe"
APT_HELPER = "/usr/lib/apt/apt-helper"  # downloads with apt's own proxies and certificates

# What a user's own checkout may hold besides source: never copied, never part of a hash.
NOT_SOURCE = shutil.ignore_patterns(
    ".git", "build", ".build_*", "distribute", "*.o", "*.so", "*.pyc", "__pycache__"
)

# Repairs of Caffe's Python files, which a user's tree may have repaired in its own way.
OPTIONAL_PATCHES = {"06-pycaffe-current-packages.patch"}


@dataclass(frozen=True)
class Archive:
    """A file of Debian's source package, and the only content it may have."""

    name: str
    sha256: str


VERSION = "1.0.0+git20180821.99bd997-8"
CAFFE = Archive(
    "caffe_1.0.0+git20180821.99bd997.orig.tar.gz",
    "e0eb3f06794f7402c77b7dec8e8480273ee1a1bb192e9122b621a69d4147ad0c",
)
DEBIAN = Archive(
    "caffe_1.0.0+git20180821.99bd997-8.debian.tar.xz",
    "07cf073227494a6b07234e40cb5df91db566616593eef9baafdc4d06ad159f21",
)


def own_tree() -> Path | None:
    """The user's own Caffe tree (`CAFFE_SOURCE`), checked to be one; None for Debian's source."""
    named = os.environ.get("CAFFE_SOURCE")
    if not named:
        return None
    tree = Path(named).expanduser().resolve()
    for part in ("CMakeLists.txt", "include/caffe/caffe.hpp", "src/caffe/proto/caffe.proto"):
        if not (tree / part).is_file():
            raise InputError(
                f"CAFFE_SOURCE={named}: not a Caffe source tree ({part} is missing); name the top "
                "folder of a BVLC Caffe checkout, or leave CAFFE_SOURCE out to use Debian's source"
            )
    return tree


def ingredients(tree: Path | None) -> dict[str, object]:
    """What the finished source tree depends on: its origin, and a SHA-256 of every part."""
    parts: dict[str, object] = {
        "source": str(tree) if tree else f"Debian source package caffe {VERSION}",
        "debian_sha256": DEBIAN.sha256,
        "patches": {patch.name: sha256_of(patch) for patch in our_patches()},
        "overlay_sha256": tree_digest(*overlay_folders()),
    }
    parts["source_sha256"] = tree_digest(tree) if tree else CAFFE.sha256
    return parts


def assemble(destination: Path, tree: Path | None, downloads: Path) -> None:
    """Make the patched source tree with our overlay in `destination`, an empty folder."""
    unpack(fetch(DEBIAN, downloads), destination)
    if tree:
        shutil.copytree(
            tree,
            destination,
            ignore=NOT_SOURCE,
            ignore_dangling_symlinks=True,
            dirs_exist_ok=True,
        )
    else:
        unpack(fetch(CAFFE, downloads), destination)
    debian = destination / "debian" / "patches"
    for name in (debian / "series").read_text().split():
        # Not all of Debian's are needed, and a user's tree may solve the same problem its own way.
        if not apply_patch(debian / name, destination):
            _say(f"Debian's patch {name} does not fit here: continuing without it")
    for patch in our_patches():
        if apply_patch(patch, destination):
            continue
        if tree and patch.name in OPTIONAL_PATCHES:
            _say(f"{patch.name} does not fit {tree}: continuing without it")
        else:
            raise InputError(
                f"{patch}: does not fit {tree or 'the source'}; use a BVLC Caffe 1.0 tree, or "
                "leave CAFFE_SOURCE out to use Debian's source"
            )
    for folder in overlay_folders():
        shutil.copytree(folder, destination / folder.name, dirs_exist_ok=True)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def fetch(archive: Archive, downloads: Path) -> Path:
    """The verified file of `archive` in `downloads`; fetched from the machine's Debian mirror."""
    path = downloads / archive.name
    if path.exists():
        if sha256_of(path) != archive.sha256:
            raise InputError(
                f"{path}: does not have the SHA-256 {archive.sha256}; delete it and run make setup "
                "again"
            )
        return path
    failures = [_download(f"{site}/{POOL}/{archive.name}", archive, path) for site in mirrors()]
    if not path.exists():
        reason = "; ".join(failures) or "apt knows no mirror: run apt-get update"
        raise InputError(
            f"{archive.name} could not be fetched ({reason}); check the network connection, or "
            f"put the file from any Debian mirror into {downloads}, then run make setup again"
        )
    return path


def mirrors() -> list[str]:
    """The Debian mirrors in apt's configuration, most basic suite first."""
    listing = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(SITE)",
            "Created-By: Packages",
            "Origin: Debian",
            "Component: main",
        ],
        capture_output=True,
        text=True,
    )
    return list(dict.fromkeys(listing.stdout.split()))


def _download(uri: str, archive: Archive, path: Path) -> str:
    """Put the file at `uri` to `path` when its content is right; otherwise say what was wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        partial = Path(folder) / "partial"
        got = subprocess.run(
            [APT_HELPER, "download-file", uri, str(partial)], capture_output=True, text=True
        )
        if got.returncode != 0 or not partial.exists():
            errors = [line[2:].strip() for line in got.stderr.splitlines() if line[:2] == "E:"]
            return errors[0] if errors else f"no answer from {uri}"
        if (digest := sha256_of(partial)) != archive.sha256:
            return f"{uri} has SHA-256 {digest}, not {archive.sha256}"
        # From a mirror on this disk apt makes a link only.
        shutil.copyfile(partial, f"{partial}.copy")
        Path(f"{partial}.copy").replace(path)
    return ""


def unpack(archive: Path, destination: Path) -> None:
    """Unpack a verified archive (neither of Debian's has one folder around all)."""
    command = ["tar", "-xf", archive, "-C", destination]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["tar failed"])[0]
        raise InputError(f"{archive}: could not be unpacked ({reason}); check the free disk space")


def apply_patch(patch: Path, tree: Path) -> bool:
    """Apply `patch` to `tree` unless it is in there already.

    Returns False, with `tree` as it was, when it does not fit.
    """
    command = ["patch", "-p1", "--force", "--no-backup-if-mismatch", "-d", tree, "-i", patch]
    command += ["--reject-file=-"]

    def works(*options: str) -> bool:
        return subprocess.run([*command, *options], capture_output=True).returncode == 0

    if works("--reverse", "--dry-run"):
        return True
    return works("--forward", "--dry-run") and works("--forward")


def our_patches() -> list[Path]:
    """The patches of this repository, in the order of their numbers."""
    return sorted((OVERLAY / "patches").glob("*.patch"))


def overlay_folders() -> list[Path]:
    """What is laid over Caffe's source, at the paths it takes there."""
    return [OVERLAY / "include", OVERLAY / "src"]


def synchronize(wanted: Path, tree: Path) -> bool:
    """Make `tree` hold the files of `wanted`, touching only those that differ.

    Unchanged files keep their time stamps, so that Ninja rebuilds only what depends on a change.
    Files that a build added to `tree` stay; those that an earlier call put there and that are no
    longer wanted go. Returns whether the set of files changed (CMake must then look again).
    """
    listing = tree.with_name(tree.name + ".files")
    before = set(listing.read_text().splitlines()) if listing.exists() else set()
    files = {str(path.relative_to(wanted)) for path in _files(wanted)}
    # Written ahead: files of an interrupted call are then known to the next.
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("\n".join(sorted(before | files)))
    for name in files:
        source, target = wanted / name, tree / name
        if not target.exists() or not filecmp.cmp(source, target, shallow=False):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    for name in before - files:
        (tree / name).unlink(missing_ok=True)
    listing.write_text("\n".join(sorted(files)))
    return before != files


def tree_digest(*roots: Path) -> str:
    """SHA-256 over names and contents of all source files below `roots`."""
    digest = hashlib.sha256()
    for root in roots:
        for path in _files(root):
            digest.update(f"{root.name}/{path.relative_to(root)} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    """All regular files below `root` that are source, in a fixed order."""
    for folder, folders, names in os.walk(root):
        skipped = NOT_SOURCE(folder, folders + names)
        folders[:] = sorted(set(folders) - skipped)
        yield from (
            path for name in sorted(set(names) - skipped) if (path := Path(folder, name)).is_file()
        )
