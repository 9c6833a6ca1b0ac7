"""Caffe's build, shared by all checkouts of one machine, and its way into a virtual environment.

The cache (`$LGLSTM_CACHE`, default `~/.cache/lg-lstm`) holds
    downloads/                Debian's source package
    caffe/<build>/source      the source tree with our patches and overlay
    caffe/<build>/build       CMake's folder: a changed file of ours rebuilds only what needs it
    caffe/<build>/<install>/  finished installations: another checkout just copies one
<build> is a hash of all that makes the folder useless when it changes (compiler, flags, Python,
NumPy, origin of the source), <install> a hash of that and of every source file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import caffe_cuda
import caffe_source
from lglstm.common.errors import InputError
from lglstm.common.hashing import sha256_of

# What is built; Caffe's examples and its deprecated tools are left out.
TOOLS = [
    "caffe",
    "compute_image_mean",
    "convert_imageset",
    "extract_features",
    "upgrade_net_proto_binary",
    "upgrade_net_proto_text",
    "upgrade_solver_proto_text",
]
TARGETS = {"caffe": "caffe.bin"}  # Ninja's names where they differ
OUR_TESTS, ALL_TESTS = "test_lg_lstm.testbin", "test.testbin"
RECORD = Path("share/lg-lstm/caffe.json")  # in an installation: what it was made from
SITE_PACKAGES = Path(f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")
KEPT_INSTALLATIONS = 5
STEP = "step "  # how Ninja's lines about its steps begin
SECONDS_BETWEEN_LINES = 30
ERROR_LINES = 20  # of the compiler's, shown when it fails
SPACE_MB = 500  # what a first build needs, with its tests

LAUNCHER = """\
#!/bin/sh
# Python layers run in an interpreter inside Caffe, which takes its packages from the environment
# of the first python3 on PATH: put this one first.
bin=$(dirname "$(readlink -f "$0")")
export PATH="$bin:$PATH"
unset PYTHONHOME
# That interpreter takes the C locale for ASCII and does not start from a folder named otherwise.
if [ "$(locale charmap 2>/dev/null)" = ANSI_X3.4-1968 ]; then
    if [ -n "$LC_ALL" ]; then export LC_ALL=C.UTF-8; else export LC_CTYPE=C.UTF-8; fi
fi
# Google's logging leaves files in /tmp after every run, unless told where to, or not to.
case "$GLOG_log_dir$GOOGLE_LOG_DIR $*" in
    " "*log_dir*) ;;
    " "*) export GLOG_logtostderr="${GLOG_logtostderr:-1}" ;;
esac
# Threads that wait for each other shall sleep: spinning ones slow a busy machine several times.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
exec "$bin/../libexec/$(basename "$0")" "$@"
"""


def cache_folder() -> Path:
    """Where everything that checkouts can share is kept."""
    own = os.environ.get("LGLSTM_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own).expanduser().resolve() if own else Path(shared) / "lg-lstm"


def cmake_flags() -> list[str]:
    """CMake's options; those for the GPU are explained in caffe_cuda."""
    libraries = Path("/usr/lib") / sysconfig.get_config_var("MULTIARCH")
    headers = Path("/usr/include") / sysconfig.get_config_var("MULTIARCH")
    # The OpenMP flavor, whatever Debian's alternatives say: our layers use OpenMP too, and two
    # pools of threads would fight for the cores.
    blas = libraries / "openblas-openmp"
    rpath = f"$ORIGIN/../lib;$ORIGIN/../../..;{blas}"  # from bin and from site-packages/caffe
    return [
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBLAS=Open",
        f"-DOpenBLAS_LIB={blas}/libopenblas.so",
        f"-DOpenBLAS_INCLUDE_DIR={headers}/openblas-openmp",
        "-DUSE_OPENMP=ON",
        "-DUSE_ONEDNN=ON",
        "-DPYTHON_EXECUTABLE=/usr/bin/python3",
        "-Dpython_version=3",
        "-DBUILD_docs=OFF",
        # Caffe overrides the rpath unless it is to be installed into the system.
        "-DCMAKE_INSTALL_PREFIX=/usr",
        "-DCMAKE_INSTALL_LIBDIR=lib",
        "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
        f"-DCMAKE_INSTALL_RPATH={rpath}",
        *caffe_cuda.cmake_flags(),
    ]


def compiler() -> str:
    """Name and version of the C++ compiler; an error when a build tool is missing."""
    for tool in ("g++", "cmake", "ninja", "protoc", "patch"):
        if not shutil.which(tool):
            raise InputError(
                f"{tool} is missing: run make setup, which installs it, or install the packages of "
                "scripts/debian-packages.txt"
            )
    answer = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True)
    return answer.stdout.splitlines()[0]


@dataclass(frozen=True)
class BuildSettings:
    """All that decides what comes out of a build."""

    tree: Path | None  # the user's own Caffe source; None for Debian's
    tools: dict[str, object]
    files: dict[str, object]

    @classmethod
    def here(cls) -> BuildSettings:
        """The settings that this checkout, this environment and this machine ask for."""
        tree = caffe_source.own_tree()
        tools = {
            "cmake_flags": cmake_flags(),
            "compiler": compiler(),
            "python": platform.python_version(),
            "numpy": version("numpy"),
            **caffe_cuda.tools(),
        }
        scripts = Path(__file__).parent.glob("caffe_*.py")
        files = caffe_source.ingredients(tree) | {
            "scripts": {path.name: sha256_of(path) for path in sorted(scripts)}
        }
        return cls(tree, tools, files)

    @cached_property
    def build_key(self) -> str:
        return _digest(self.tools | {"source": self.files["source"]})

    @cached_property
    def install_key(self) -> str:
        return _digest(self.tools | self.files)

    @property
    def mode(self) -> str:
        return "CPU" if "-DCPU_ONLY=ON" in self.tools["cmake_flags"] else "CUDA"

    def record(self) -> dict[str, object]:
        """What an installation says about itself; `lglstm doctor` reads it."""
        about = {"key": self.install_key, "mode": self.mode, "blas": "OpenBLAS with OpenMP"}
        return about | self.files | self.tools


def _digest(parts: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class CaffeBuild:
    """The folders of one build in the cache."""

    def __init__(self, settings: BuildSettings, cache: Path) -> None:
        self.settings = settings
        self.downloads = cache / "downloads"
        self.folder = cache / "caffe" / settings.build_key
        self.source = self.folder / "source"
        self.build = self.folder / "build"
        self.installation = self.folder / settings.install_key

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other checkouts out of these folders for the time being."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("w")
        except OSError as error:
            raise InputError(
                f"{self.folder}: cannot be written ({error.strerror}); set LGLSTM_CACHE to a "
                "folder that you may write to"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("Waiting for another set-up of Caffe on this machine", file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def installed(self) -> Path:
        """The installation for the settings, from the cache or built now."""
        if not self.installation.exists():
            with self._locked():
                if not self.installation.exists():
                    self._make("pycaffe", *(TARGETS.get(tool, tool) for tool in TOOLS))
                    self._collect()
                    self._forget_old_installations()
        self.installation.touch()  # used last, removed last
        return self.installation

    def built(self, *targets: str) -> Path:
        """CMake's folder, in which `targets` of Ninja are up to date."""
        with self._locked():
            self._make(*targets)
        return self.build

    def run_tests(self, program: str) -> int:
        """Build a test program and run it where its data files are. Returns its exit status."""
        with self._locked():
            self._make(program)
            command = [self.build / "test" / program]
            if self.settings.mode == "CPU":
                command.append("--gtest_filter=-*GPU*")
            return subprocess.run(command, cwd=self.source).returncode

    def _make(self, *targets: str) -> None:
        """Bring the source up to date with the settings, and build `targets` of Ninja."""
        configured = (self.build / "build.ninja").exists()
        if not configured:
            require_space(self.folder, SPACE_MB)
        wanted = self._empty("assembling")
        caffe_source.assemble(wanted, self.settings.tree, self.downloads)
        files_changed = caffe_source.synchronize(wanted, self.source)
        shutil.rmtree(wanted)
        if files_changed or not configured:
            self._configure()
        self._compile(*targets)

    def _configure(self) -> None:
        _provide_numpy_headers(self.build)
        log = self.folder / "cmake.log"
        command = ["cmake", "-G", "Ninja", "-S", self.source, "-B", self.build, "-Wno-dev"]
        command += self.settings.tools["cmake_flags"]
        with log.open("w") as output:
            done = subprocess.run(command, stdout=output, stderr=output, env=self._environment())
        if done.returncode != 0:
            (self.build / "build.ninja").unlink(missing_ok=True)  # the next call configures again
            print(*log.read_text().splitlines()[-30:], sep="\n", file=sys.stderr)
            raise InputError(
                f"CMake could not configure Caffe: the end of {log} is shown above; install what "
                "it misses and run make setup again"
            )

    def _compile(self, *targets: str) -> None:
        """Run Ninja; the compiler's output goes to a log, the screen shows how far it is."""
        log = self.folder / "compile.log"
        environment = self._environment() | {"NINJA_STATUS": f"{STEP}%f/%t "}
        command = ["ninja", "-C", self.build, *targets]
        with (
            log.open("w") as output,
            subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as ninja,
        ):
            for line in _with_progress(ninja.stdout or ()):
                output.write(line)
        if ninja.returncode != 0:
            print(*_first_failure(log.read_text()), sep="\n", file=sys.stderr)
            raise InputError(
                f"Caffe could not be compiled: the lines above say why ({log} has all of them); "
                "repair that and run make setup again"
            )

    def _environment(self) -> dict[str, str]:
        """CMake's own Python finds NumPy's headers in the build folder (Ninja may start CMake)."""
        return os.environ | {"PYTHONPATH": str(self.build)}

    def _collect(self) -> None:
        """Put the installation together from the build folder; complete, or not there at all."""
        place = self._empty("installing")
        for folder in ("bin", "libexec", "lib"):
            (place / folder).mkdir()
        for tool in TOOLS:
            shutil.copy(self.build / "tools" / tool, place / "libexec" / tool)
            launcher = place / "bin" / tool
            launcher.write_text(LAUNCHER)
            launcher.chmod(0o755)
        for library in (self.build / "lib").glob("libcaffe.so*"):
            shutil.copy(library, place / "lib", follow_symlinks=False)
        module = place / SITE_PACKAGES / "caffe"
        not_ours = shutil.ignore_patterns("test", "proto", "*.so", "__pycache__")
        shutil.copytree(self.source / "python" / "caffe", module, ignore=not_ours)
        shutil.copy(self.build / "lib" / "_caffe.so", module)
        (module / "proto").mkdir()
        (module / "proto" / "__init__.py").touch()
        shutil.copy(self.build / "include" / "caffe" / "proto" / "caffe_pb2.py", module / "proto")
        record = place / RECORD
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps(self.settings.record(), indent=2) + "\n")
        place.rename(self.installation)

    def _empty(self, name: str) -> Path:
        """An empty folder of that name (an interrupted call may have left something in it)."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _forget_old_installations(self) -> None:
        installations = [record.parents[2] for record in self.folder.glob(f"*/{RECORD}")]
        installations.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
        for folder in installations[KEPT_INSTALLATIONS:]:
            shutil.rmtree(folder)


def _with_progress(lines: Iterable[str]) -> Iterator[str]:
    """Pass Ninja's lines on, and show its steps: one line that changes, or one each half minute.

    On standard error: what `gpu_check.py --json` prints on standard output is read by programs.
    """
    terminal, shown = sys.stderr.isatty(), -math.inf
    try:
        for line in lines:
            yield line
            if not line.startswith(STEP):
                continue
            step = f"Caffe {line.removeprefix(STEP).split()[0]}"
            if terminal:
                print(f"\r{step} ", end="", file=sys.stderr, flush=True)
            elif time.monotonic() - shown >= SECONDS_BETWEEN_LINES:
                print(step, file=sys.stderr)
                shown = time.monotonic()
    finally:
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _first_failure(log: str) -> list[str]:
    """The first error in Ninja's log with a few lines around it, or the end of the log."""
    lines = log.splitlines()
    failed = next((i for i, line in enumerate(lines) if line.startswith("FAILED:")), None)
    if failed is None:
        return lines[-ERROR_LINES:]
    output = lines[failed + 2 :]  # the command in between is long and explains nothing
    end = next((i for i, line in enumerate(output) if line.startswith(STEP)), len(output))
    error = next((i for i, line in enumerate(output[:end]) if "error" in line), 0)
    start = max(0, error - ERROR_LINES // 2)
    return [lines[failed], *output[start : min(end, error + ERROR_LINES // 2)]]


def _provide_numpy_headers(build: Path) -> None:
    """Copy NumPy's headers to `build`, as a package that answers the questions of CMake.

    So the build depends on no checkout's environment; and as Caffe has its build folder first on
    the include path, these headers also win over those of Debian's own, older NumPy.
    """
    import numpy

    shutil.copytree(Path(numpy.get_include()) / "numpy", build / "numpy", dirs_exist_ok=True)
    (build / "numpy" / "__init__.py").write_text(
        f"__version__ = {numpy.__version__!r}\n\n\ndef get_include():\n    return {str(build)!r}\n"
    )


def require_space(folder: Path, megabytes: int) -> None:
    """Refuse to start a build that would fill the disk."""
    free = shutil.disk_usage(folder).free // 2**20
    if free < megabytes:
        raise InputError(
            f"{folder}: building Caffe needs {megabytes} MB of disk space, but only {free} MB are "
            "free; free some, or set LGLSTM_CACHE to a folder on another disk"
        )


def install(installation: Path, prefix: Path) -> None:
    """Copy an installation into the environment `prefix`.

    Every file is replaced in one step, so that a running `caffe train` keeps the one it has open.
    """
    (prefix / RECORD).unlink(missing_ok=True)
    files = [path for path in installation.rglob("*") if path.is_symlink() or path.is_file()]
    # The record comes last: without it, the next call copies again.
    for path in sorted(files, key=lambda path: path == installation / RECORD):
        target = prefix / path.relative_to(installation)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        partial.unlink(missing_ok=True)
        shutil.copy2(path, partial, follow_symlinks=False)
        partial.replace(target)


def installed_key(prefix: Path) -> str | None:
    """The key of the installation in the environment `prefix`; None when there is none."""
    record = prefix / RECORD
    return json.loads(record.read_text())["key"] if record.exists() else None
