"""`lglstm table` over runs of which one is odd: it is named, and the others are printed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lglstm.cli.main import main
from lglstm.common.images import write_label
from lglstm.common.labels import LABEL_SETS

HORSE = LABEL_SETS["horse"]


@pytest.fixture
def runs(tmp_path) -> Path:
    """A folder with one sound evaluation in it, of horse.lg_lstm."""
    ids = np.tile(np.arange(5, dtype=np.uint8), (4, 1))
    write_label(tmp_path / "data/a.png", ids, HORSE.palette)
    (tmp_path / "data/test.txt").write_text("a.png a.png\n")
    result = CliRunner().invoke(
        main,
        ["evaluate", "--predictions", f"{tmp_path}/data", "--list", f"{tmp_path}/data/test.txt",
         "--labels", "horse", "--paper", "horse.lg_lstm", "-o", f"{tmp_path}/runs/good"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return tmp_path / "runs"


def table(runs, *more):
    return CliRunner().invoke(main, ["table", "5", str(runs), *more])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("finished", None),
        ("finished", 7),
        ("finished", "yesterday"),
        ("row", ["horse.lg_lstm"]),
        ("row", {}),
        ("images", "many"),
        ("images", None),
        ("list", 5),
        ("warnings", "text"),
        ("metrics", None),
        ("metrics", [1]),
        ("metrics", {"mean_iou": "high"}),
        ("metrics", {"mean_iou": 10**400}),
        ("metrics", {"mean_iou": [1]}),
        ("metrics", {"mean_iou": float("nan")}),
        ("metrics", {"iou": {"head": {}}}),
        ("format", [1]),
    ],
)
def test_one_odd_field_costs_only_its_own_result(runs, key, value):
    contents = json.loads((runs / "good/evaluation.json").read_text()) | {key: value}
    (runs / "bad").mkdir()
    (runs / "bad/evaluation.json").write_text(json.dumps(contents))
    for more in ((), ("--json",)):
        printed = table(runs, *more)
        assert printed.exit_code == 0, printed.output
        assert "100.0" in printed.stdout
        assert printed.stderr.count("\n") == 1
        assert (
            "warning: " in printed.stderr and "bad/evaluation.json: not a result" in printed.stderr
        )


@pytest.mark.parametrize(
    "text",
    ["", "[", "7", "[]", "{}", "null", '"x"', "[" * 100_000, '{"format": 1}', "\udcff", "NaN"],
)
def test_other_files_cost_only_themselves(runs, text):
    (runs / "bad").mkdir()
    (runs / "bad/evaluation.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    (runs / "worse/evaluation.json").mkdir(parents=True)
    printed = table(runs)
    assert printed.exit_code == 0, printed.output
    assert "100.00" in printed.stdout and printed.stderr.count("not a result of") == 2
