"""The distribution in pytorch/: installed as people install it, it needs torch and safetensors."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from convert_help import ROOT

from lglstm import __version__
from lglstm.caffe_files import random_weights, read_net

for package in ("torch", "safetensors"):
    pytest.importorskip(package, reason=f"needs the package {package}: see docs/convert.md")

FOLDER = ROOT / "pytorch"
USED = """
import sys
import torch
import lg_lstm_torch
from lg_lstm_torch import LGLSTM, LGLSTMTransition, load, save
import lg_lstm_torch.solver

x = torch.load("x.pt")
net = load("net.safetensors")
with torch.no_grad():
    torch.testing.assert_close(net(x["photos"]), x["scores"])
save(net, "again.pth")
assert torch.equal(load("again.pth").weights()["conv1.weight"], net.weights()["conv1.weight"])
cells = LGLSTMTransition(3, 4)(x["photos"])
LGLSTM(4)(*cells)[0].sum().backward()
assert not {"lglstm", "numpy", "google"} & {name.partition(".")[0] for name in sys.modules}
print(lg_lstm_torch.__file__)
"""


def test_its_version_is_the_projects_and_its_needs_are_two() -> None:
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert {re.split("[^a-z]", need)[0] for need in project["dependencies"]} == {
        "torch",
        "safetensors",
    }


def distributions(*names: str) -> Iterator[importlib.metadata.Distribution]:
    """These and what they need, as far as it is installed."""
    seen, waiting = set(), list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        yield found
        needs = [need for need in found.requires or [] if "extra ==" not in need]
        waiting += [re.split(r"[^\w.-]", need)[0] for need in needs]


def lend(folder: Path, *names: str) -> None:
    """Link the modules of installed distributions, and of those that they need, into a folder."""
    folder.mkdir()
    for found in distributions(*names):
        for file in found.files or []:
            top = file.parts[0]
            source = Path(str(found.locate_file(top)))
            if top not in ("..", "__pycache__") and not (folder / top).exists() and source.exists():
                (folder / top).symlink_to(source)


def write_net(folder: Path) -> None:
    """A converted net, photos, and its scores."""
    import torch

    from lglstm.convert.torch import Net, save

    plan = read_net(ROOT / "models" / "demo" / "deploy.prototxt", size=(33, 41))
    net = Net(plan.description()).load_weights(random_weights(plan, 1, contrast=60)).eval()
    save(net, folder / "net.safetensors")
    photos = 60 * torch.randn(2, 3, 33, 41)
    with torch.no_grad():
        torch.save({"photos": photos, "scores": net(photos)}, folder / "x.pt")


@pytest.mark.slow
def test_pip_installs_it_from_a_clone_and_from_git(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    skipped = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    shutil.copytree(FOLDER, clone / "pytorch", symlinks=True, ignore=skipped)
    shutil.copy(ROOT / "LICENSE", clone)
    git = ["git", "-C", str(clone), "-c", "user.name=x", "-c", "user.email=x@localhost"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *arguments], check=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    for name, source in (
        ("git", f"git+file://{clone}#subdirectory=pytorch"),
        ("path", str(clone / "pytorch")),
    ):
        subprocess.run([*pip, "--target", tmp_path / name, source], check=True)
        assert {path.name for path in (tmp_path / name).iterdir()} == {
            "lg_lstm_torch", f"lg_lstm_torch-{__version__}.dist-info",
        }  # fmt: skip
        assert (tmp_path / name / "lg_lstm_torch" / "py.typed").is_file()
    (license_,) = (tmp_path / "git").glob("*.dist-info/licenses/LICENSE")
    assert license_.read_text() == (ROOT / "LICENSE").read_text()

    lend(tmp_path / "lent", "torch", "safetensors")
    write_net(tmp_path)
    folders = [str(tmp_path / name) for name in ("git", "lent")]
    code = f"import sys; sys.path += {folders!r}\n{USED}"
    done = subprocess.run(  # neither the environment's packages nor the current folder's
        [sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "git")


def test_the_examples_of_its_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lglstm.convert.torch import Net, save

    plan = read_net(ROOT / "models" / "demo" / "deploy.prototxt", size=(33, 41))
    save(Net(plan.description()), tmp_path / "horse.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(FOLDER))
    blocks = re.findall(r"^```python\n(.*?)^```$", (FOLDER / "README.md").read_text(), re.M | re.S)
    assert len(blocks) == 3
    names: dict = {}
    for block in blocks:
        exec(compile(block.replace("321", "33"), "pytorch/README.md", "exec"), names)
    assert names["scores"].shape == (1, 5, 33, 33)
    assert names["loss"].isfinite()
    assert (tmp_path / "copy.safetensors").is_file()
