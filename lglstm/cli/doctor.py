"""`lglstm doctor`: what is installed here, and what is missing, with the remedy."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.table import Table
from rich.text import Text

from lglstm.common import child, convolution_engine
from lglstm.common.checkout import setup_advice
from lglstm.common.console import plain_console

OUR_LAYERS = ["LGLSTM", "LGLSTMTransition"]
RECORD = Path("share/lg-lstm/caffe.json")  # written by make setup: what Caffe was built from
SETUP = setup_advice()


class Finding(NamedTuple):
    """One line of the report; with a `remedy` it is a problem, else all is well."""

    name: str
    value: str
    remedy: str | None = None
    needed: bool = True  # whether training needs it


def collect() -> dict[str, Any]:
    """Look at this machine and environment; nothing is judged here.

    `caffe` and `command` hold an `error` instead of facts when they don't work.
    """
    record = Path(sys.prefix) / RECORD
    return {
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.platform()),
        "python": platform.python_version(),
        "prefix": sys.prefix,
        "numpy": _version("numpy"),
        "packages": _packages(),
        "convolution": convolution_engine.asked(),
        "build": json.loads(record.read_text()) if record.is_file() else None,
        "caffe": _probe(),
        "command": _command(),
        "gpus": _gpus(),
    }


def judge(facts: dict[str, Any]) -> list[Finding]:
    """The report on what `collect` found."""
    return list(_judge(facts))


def _judge(facts: dict[str, Any]) -> Iterator[Finding]:
    yield Finding("system", facts["system"])
    yield Finding("Python", f"{facts['python']} in {facts['prefix']}")
    yield Finding("NumPy", facts["numpy"] or "missing", None if facts["numpy"] else SETUP)
    missing = [name for name, version in facts["packages"].items() if not version]
    if missing or not facts["packages"]:
        yield Finding("packages", f"missing: {', '.join(missing) or 'lg-lstm itself'}", SETUP)
    else:
        yield Finding("packages", f"all {len(facts['packages'])} are installed")
    caffe, build = facts["caffe"], facts["build"]
    if "error" in caffe:
        yield Finding("Caffe", caffe["error"], SETUP)
    else:
        yield from _judge_caffe(caffe, build, facts["convolution"])
    if "error" in facts["command"]:
        yield Finding("caffe command", facts["command"]["error"], SETUP)
    else:
        yield Finding("caffe command", facts["command"]["path"])
    yield _judge_device(build, facts["gpus"])


def _judge_caffe(
    caffe: dict[str, Any], build: dict[str, Any] | None, engine: str
) -> Iterator[Finding]:
    source = build["source"] if build else "a source unknown to make setup"
    yield Finding("Caffe", f"{caffe['version']} from {source}")
    absent = [name for name in OUR_LAYERS if name not in caffe["layer_types"]]
    if absent:
        yield Finding("layer types", f"not registered: {', '.join(absent)}", SETUP)
    else:
        yield Finding("layer types", ", ".join(OUR_LAYERS))
    broken = [f"{name}: {error}" for name, error in caffe["python_layers"].items() if error]
    if broken:
        yield Finding("Python layers", "; ".join(broken), SETUP)
    else:
        yield Finding("Python layers", ", ".join(caffe["python_layers"]))
    blas = caffe["blas_library"] or "not OpenBLAS"
    slow = "openblas-openmp" not in blas
    kernels = f", kernels for {caffe['blas_kernels']}" if caffe.get("blas_kernels") else ""
    remedy = f"{SETUP}: this one competes with our threads" if slow else None
    yield Finding("BLAS", f"{blas}{kernels}", remedy, False)
    yield _judge_convolution(engine, caffe["onednn_library"], caffe["bf16"])
    yield Finding("threads", f"{caffe['threads']} (OMP_NUM_THREADS sets another number)")


def _judge_convolution(engine: str, onednn: str | None, bf16: bool) -> Finding:
    """Which engine convolutions on the CPU have, unless their prototxt names one."""
    if engine not in convolution_engine.ENGINES:
        known = ", ".join(convolution_engine.ENGINES)
        remedy = f"set {convolution_engine.VARIABLE} to one of {known}, or unset it"
        return Finding("convolution", engine, remedy)
    if engine == "onednn_bf16" and onednn and not bf16:
        value = "onednn_bf16, but bfloat16 is no faster on this processor: onednn_winograd computes"
        return Finding("convolution", value)
    if engine != convolution_engine.DEFAULT:
        return Finding("convolution", engine if onednn else "no oneDNN", None if onednn else SETUP)
    advice = f" ({convolution_engine.faster(bf16)})" if onednn else ""
    return Finding("convolution", f"Caffe's own{advice}")


def _judge_device(build: dict[str, Any] | None, gpus: list[str]) -> Finding:
    if build and build["mode"] == "CUDA":
        remedy = None if gpus else "run it where nvidia-smi lists a GPU; here the CPU is used"
        return Finding("device", f"CUDA, {', '.join(gpus) or 'no GPU'}", remedy, False)
    unused = f" (not used by this build: {', '.join(gpus)})" if gpus else ""
    return Finding("device", f"CPU{unused}")


def _packages() -> dict[str, str | None]:
    """Version of every package this project requires; None where it is missing."""
    try:
        requirements = metadata.requires("lg-lstm") or []
    except metadata.PackageNotFoundError:
        return {}
    needed = (line for line in requirements if "extra ==" not in line)
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in needed]
    return {name: _version(name) for name in names}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _probe() -> dict[str, Any]:
    run = subprocess.run(
        child.module_command("lglstm.cli.caffe_probe"),
        capture_output=True,
        text=True,
        env=child.environment(),
    )
    if run.returncode == 0:
        return json.loads(run.stdout.splitlines()[-1])
    last = run.stderr.strip().splitlines()[-1:] or [f"it ended with status {run.returncode}"]
    return {"error": f"cannot be imported: {last[0]}"}


def _command() -> dict[str, str]:
    """The `caffe` program of this environment, which must start without activation."""
    path = shutil.which("caffe", path=str(Path(sys.prefix) / "bin"))
    if not path:
        return {"error": f"not in {sys.prefix}/bin"}
    run = subprocess.run([path, "--version"], capture_output=True, text=True)
    if "caffe version" not in run.stdout:
        return {"error": f"{path} does not start: {run.stderr.strip()[-200:]}"}
    return {"path": path}


def _gpus() -> list[str]:
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    run = subprocess.run(query, capture_output=True, text=True)
    return run.stdout.split("\n")[:-1] if run.returncode == 0 else []


def ready(findings: list[Finding]) -> bool:
    """Whether training can run."""
    return not any(finding.remedy and finding.needed for finding in findings)


def as_json(facts: dict[str, Any], findings: list[Finding]) -> dict[str, Any]:
    """The machine-readable report: `ok`, our registered `layers`, versions, and what is missing."""
    build, caffe = facts["build"] or {}, facts["caffe"]
    registered = caffe.get("layer_types", [])
    return {
        "ok": ready(findings),
        "layers": [name for name in OUR_LAYERS if name in registered],
        "caffe": {
            "version": caffe.get("version"),
            "source": build.get("source"),
            "mode": build.get("mode"),
            "blas": caffe.get("blas_library"),
            "blas_kernels": caffe.get("blas_kernels"),
            "onednn": caffe.get("onednn_library"),
            "bf16": caffe.get("bf16"),
            "compiler": build.get("compiler"),
            "command": facts["command"].get("path"),
        },
        "python": facts["python"],
        "numpy": facts["numpy"],
        "packages": facts["packages"],
        "convolution": facts["convolution"],
        "threads": caffe.get("threads"),
        "gpus": facts["gpus"],
        "system": facts["system"],
        "prefix": facts["prefix"],
        "missing": [
            {"name": name, "found": value, "remedy": remedy, "needed": needed}
            for name, value, remedy, needed in findings
            if remedy
        ],
    }


def show(findings: list[Finding]) -> None:
    """Print the report as a table, then the remedies."""
    table = Table.grid(padding=(0, 2))
    for _ in range(3):
        table.add_column(overflow="fold")
    for name, value, remedy, _ in findings:
        state = Text("missing", "red") if remedy else Text("ok", "green")
        table.add_row(state, name, value)
    console = plain_console(highlight=False)
    console.print(table)
    for name, _, remedy, _ in findings:
        if remedy:
            console.print(f"{name}: {remedy}", soft_wrap=True)


@click.command(epilog="Examples:  lglstm doctor    lglstm doctor --json")
@click.option("--json", "json_wanted", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def command(ctx: click.Context, json_wanted: bool) -> None:
    """Say what is installed here and what is missing, with the remedy.

    Exits with 1 if training cannot run.
    """
    facts = collect()
    findings = judge(facts)
    if json_wanted:
        click.echo(json.dumps(as_json(facts, findings), indent=2))
    else:
        show(findings)
    ctx.exit(0 if ready(findings) else 1)
