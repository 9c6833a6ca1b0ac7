"""Caffe's source tree: fetched and checked, or the user's own, with our patches and overlay.

Only our own files are in this repository (`layers/caffe`); `archives.py` says where Caffe is from.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from archives import CAFFE, DEBIAN, VERSION, fetch, unpack
from lglstm.common.errors import InputError
from lglstm.common.hashing import sha256_of

REPOSITORY = Path(__file__).resolve().parent.parent
OVERLAY = REPOSITORY / "layers" / "caffe"

# What a user's own checkout may hold besides source: never copied, never part of a hash.
NOT_SOURCE = shutil.ignore_patterns(
    ".git", "build", ".build_*", "distribute", "*.o", "*.so", "*.pyc", "__pycache__"
)

# Repairs of Caffe's Python files, which a user's tree may have repaired in its own way.
OPTIONAL_PATCHES = {"06-pycaffe-current-packages.patch"}


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
