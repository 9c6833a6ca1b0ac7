"""The archives of Caffe's source: where they are, and what must be in them.

Debian's mirrors drop a release some years after it, so further places follow those that apt knows:
BVLC's own repository at GitHub, and Debian's archives of old releases. Every byte is checked before
use, so it does not matter who sent it.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lglstm.common.errors import InputError
from lglstm.common.hashing import sha256_of

POOL = "pool/main/c/caffe"
APT_HELPER = "/usr/lib/apt/apt-helper"  # downloads with apt's own proxies and certificates


@dataclass(frozen=True)
class Archive:
    """A file of Debian's source package, and the only content it may have.

    elsewhere: another archive with the same files, in one folder, and its address.
    """

    name: str
    sha256: str
    elsewhere: Repacked | None = None

    def problem(self, path: Path) -> str:
        """What is wrong with the content of `path`: "" if nothing is."""
        digest = sha256_of(path)
        return "" if digest == self.sha256 else f"has SHA-256 {digest}, not {self.sha256}"


@dataclass(frozen=True)
class Repacked:
    """An archive made anew for each download: what counts are its files, not its own bytes.

    sha256: of the lines `SHA-256  name` of all its files, sorted, as from `sha256sum`; the names
        without the one folder around all.
    """

    name: str
    sha256: str
    uri: str

    def problem(self, path: Path) -> str:
        """What is wrong with the files in `path`: "" if nothing is."""
        try:
            digest = _digest_of_files(path)
        except (tarfile.TarError, OSError, EOFError) as error:
            return f"is no archive that can be read ({error})"
        return "" if digest == self.sha256 else f"has other files than those of {COMMIT}"


def _digest_of_files(path: Path) -> str:
    lines = []
    with tarfile.open(path) as tar:
        for member in tar:
            name = member.name.partition("/")[2]
            file = tar.extractfile(member) if member.isfile() else None
            if file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
            elif not member.isdir():
                raise tarfile.TarError(f"{name} is neither a file nor a folder")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


VERSION = "1.0.0+git20180821.99bd997-8"
COMMIT = "99bd99795dcdf0b1d3086a8d67ab1782a8a08383"
CAFFE = Archive(
    "caffe_1.0.0+git20180821.99bd997.orig.tar.gz",
    "e0eb3f06794f7402c77b7dec8e8480273ee1a1bb192e9122b621a69d4147ad0c",
    Repacked(
        f"caffe-{COMMIT}.tar.gz",
        "d18e224c088c035e322be3f0f2e360ce79f80f28a2b856baf384dc5519702ba7",
        f"https://codeload.github.com/BVLC/caffe/tar.gz/{COMMIT}",
    ),
)
DEBIAN = Archive(
    "caffe_1.0.0+git20180821.99bd997-8.debian.tar.xz",
    "07cf073227494a6b07234e40cb5df91db566616593eef9baafdc4d06ad159f21",
)

OLD_RELEASES = (
    "http://archive.debian.org/debian",
    "http://snapshot.debian.org/archive/debian/20220101T000000Z",
)
"""Where Debian keeps what its mirrors no longer have."""


def fetch(archive: Archive, downloads: Path) -> Path:
    """The verified file of `archive`, or of what replaces it, in `downloads`; fetched if need be.

    Raises InputError that names every place that was tried.
    """
    for known in filter(None, (archive, archive.elsewhere)):
        path = downloads / known.name
        if path.exists():
            if problem := known.problem(path):
                raise InputError(f"{path}: {problem}; delete it and run make setup again")
            return path
    failures = []
    for uri, wanted in _places(archive):
        path = downloads / wanted.name
        failure = _download(uri, wanted, path)
        if not failure:
            return path
        failures.append(failure)
    raise InputError(
        f"{archive.name} could not be fetched ({'; '.join(failures)}); check the network "
        f"connection, or put the file from any Debian mirror into {downloads}, then run make setup "
        "again"
    )


def _places(archive: Archive) -> list[tuple[str, Archive | Repacked]]:
    """Addresses and what must be there, in the order in which they are tried."""

    def below(sites: list[str]) -> list[tuple[str, Archive | Repacked]]:
        return [(f"{site}/{POOL}/{archive.name}", archive) for site in sites]

    other = archive.elsewhere
    return [
        *below(mirrors()),
        *([(other.uri, other)] if other else []),
        *below(list(OLD_RELEASES)),
    ]


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


def _download(uri: str, wanted: Archive | Repacked, path: Path) -> str:
    """Put the file at `uri` to `path` when its content is right; otherwise say what was wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        partial = Path(folder) / "partial"
        got = subprocess.run(
            [APT_HELPER, "download-file", uri, str(partial)], capture_output=True, text=True
        )
        if got.returncode != 0 or not partial.exists():
            errors = [line[2:].strip() for line in got.stderr.splitlines() if line[:2] == "E:"]
            reason = errors[0] if errors else "no answer"
            return reason if uri in reason else f"{uri}: {reason}"
        if problem := wanted.problem(partial):
            return f"{uri} {problem}"
        # From a mirror on this disk apt makes a link only.
        shutil.copyfile(partial, f"{partial}.copy")
        Path(f"{partial}.copy").replace(path)
    return ""


def unpack(archive: Path, destination: Path) -> None:
    """Unpack a verified archive; of Debian's, neither has one folder around all."""
    command = ["tar", "-xf", archive, "-C", destination]
    if CAFFE.elsewhere and archive.name == CAFFE.elsewhere.name:
        command.append("--strip-components=1")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["tar failed"])[0]
        raise InputError(f"{archive}: could not be unpacked ({reason}); check the free disk space")
