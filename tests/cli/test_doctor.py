"""`lglstm doctor` on this environment, and on ones with something missing."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

from lglstm.cli import doctor


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    """What doctor finds here; Caffe for the GPU gets one, as in most places where it is built."""
    found = doctor.collect()
    return found | {"gpus": found["gpus"] or ["a GPU"]}


def run_doctor(
    *arguments: str, python: Path | str = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "lglstm.cli.main", "doctor", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


def python_with(caffe: str, folder: Path) -> Path:
    """The Python of an environment as this one, but with `caffe` as the text of its pycaffe."""
    venv.create(folder, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (packages / "caffe.py").write_text(caffe)
    (packages / "others.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    )
    return folder / "bin" / "python"


def without_device(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What is missing, but for a GPU: CUDA's image is tested on machines that have none."""
    return [missing for missing in report["missing"] if missing["name"] != "device"]


def test_all_is_well_after_setup() -> None:
    run = run_doctor("--json")
    report = json.loads(run.stdout)
    assert without_device(report) == []
    assert (report["ok"], run.returncode) == (True, 0)
    assert report["layers"] == ["LGLSTM", "LGLSTMTransition"]
    assert report["caffe"]["version"] == "1.0.0"
    assert "openblas-openmp" in report["caffe"]["blas"]
    if "avx2" in Path("/proc/cpuinfo").read_text().split():  # also where OpenBLAS knows no better
        assert report["caffe"]["blas_kernels"] not in ("Prescott", None)
    assert "libdnnl" in report["caffe"]["onednn"]
    assert report["threads"] >= 1


@pytest.mark.slow
def test_table_names_every_finding() -> None:
    run = run_doctor()
    assert run.returncode == 0, run.stdout
    for name in ("Python", "NumPy", "Caffe", "layer types", "BLAS", "convolution", "threads"):
        assert name in run.stdout
    assert "[/" not in run.stdout, "no markup"


@pytest.mark.slow
def test_bf16_where_it_is_not_fast_says_what_computes() -> None:
    """It is oneDNN that is told that the processor has no more than AVX-512's first set."""
    run = run_doctor(CAFFE_CONVOLUTION_ENGINE="onednn_bf16", DNNL_MAX_CPU_ISA="AVX512_CORE")
    assert run.returncode == 0, run.stdout
    said = " ".join(run.stdout.split())
    assert "bfloat16 is no faster on this processor: onednn_winograd computes" in said


def test_caffe_that_cannot_be_imported(tmp_path: Path) -> None:
    python = python_with("raise ImportError('libcaffe.so is gone')\n", tmp_path)
    run = run_doctor("--json", python=python)
    report = json.loads(run.stdout)
    assert (report["ok"], run.returncode, report["layers"]) == (False, 1, [])
    missing = {missing["name"]: missing for missing in report["missing"]}["Caffe"]
    assert "libcaffe.so is gone" in missing["found"]
    assert "make setup" in missing["remedy"]


def test_caffe_that_ends_its_process(tmp_path: Path) -> None:
    run = run_doctor(python=python_with("import os\nos.abort()\n", tmp_path))
    assert run.returncode == 1
    assert "make setup" in run.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "name", "needed"),
    [
        ({"numpy": None}, "NumPy", True),
        ({"packages": {}}, "packages", True),
        ({"packages": {"h5py": None}}, "packages", True),
        ({"caffe": {"layer_types": ["LSTM", "LGLSTM"]}}, "layer types", True),
        (
            {"caffe": {"python_layers": {"lglstm.layers.seg_data": "No module"}}},
            "Python layers",
            True,
        ),
        ({"caffe": {"blas_library": "/usr/lib/libblas.so.3"}}, "BLAS", False),
        ({"convolution": "mkl"}, "convolution", True),
        (
            {"convolution": "onednn", "caffe": {"onednn_library": None}},
            "convolution",
            True,
        ),
        ({"command": {"error": "not in bin"}}, "caffe command", True),
        ({"build": {"mode": "CUDA"}, "gpus": []}, "device", False),
    ],
)
def test_each_missing_part_has_its_remedy(
    facts: dict[str, Any], change: dict[str, Any], name: str, needed: bool
) -> None:
    changed = copy.deepcopy(facts)
    for key, value in change.items():
        keep = changed[key] if key in ("caffe", "build") else None
        changed[key] = keep | value if keep else value
    findings = doctor.judge(changed)
    problems = {finding.name: finding for finding in findings if finding.remedy}
    assert list(problems) == [name]
    assert doctor.ready(findings) is not needed
