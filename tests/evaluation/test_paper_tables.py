"""The paper's tables: complete, and consistent with themselves and with the paper's own text."""

import io

import numpy as np
import pytest

from lglstm.common.console import plain_console
from lglstm.common.errors import InputError
from lglstm.common.labels import label_set
from lglstm.evaluation import paper
from lglstm.evaluation.metrics import Metrics
from lglstm.evaluation.tables import number, paper_tables

PRINTED = 0.005  # half of the last printed digit


def cells(number, dataset):
    (block,) = [table for table in paper.blocks_of(number) if table.dataset == dataset]
    return {row.key.partition(".")[2]: row.cells for row in block.rows}


def test_every_row_and_column_is_there():
    sizes = {(t.number, t.dataset): (len(t.rows), len(t.columns)) for t in paper.tables()}
    assert sizes == {
        (1, "horse"): (4, 8),
        (1, "cow"): (4, 8),
        (2, "atr"): (8, 5),
        (3, "fashionista"): (7, 5),
        (4, "atr"): (7, 17),
        (5, "horse"): (6, 8),
        (5, "cow"): (6, 8),
    }
    # Empty are only the tails and means that SPS [30] does not report.
    empty = [
        (row.key, metric)
        for table in paper.tables()
        for row in table.rows
        for metric, value in row.cells.items()
        if value is None
    ]
    assert empty == [
        (f"{animal}.sps", metric)
        for animal in ("horse", "cow")
        for metric in ("iou.tail", "mean_iou")
    ]


def test_every_data_set_says_what_its_numbers_are_for():
    assert all(paper.test_set(key) for key in paper.rows())


def test_mean_iou_is_the_mean_of_five_and_one_row_contradicts_itself():
    checked, contradictions = 0, []
    for animal in ("horse", "cow"):
        for key, row in {**cells(1, animal), **cells(5, animal)}.items():
            parts = [value for metric, value in row.items() if metric.startswith("iou.")]
            if None in parts:
                continue
            checked += 1
            # The mean of five rounded numbers may be off by their rounding and its own.
            if abs(np.mean(parts) - row["mean_iou"]) > 2 * PRINTED + 1e-9:
                contradictions.append(f"{animal}.{key}")
    assert checked == 16
    assert contradictions == ["horse.joint"]
    joint = [v for m, v in cells(1, "horse")["joint"].items() if m.startswith("iou.")]
    assert np.mean([*joint[:4], 41.87]) == pytest.approx(65.02, abs=2 * PRINTED)


def test_the_same_method_has_the_same_numbers_in_every_table():
    for animal in ("horse", "cow"):
        assert cells(1, animal)["lg_lstm"] == cells(5, animal)["lg_lstm"]


def test_table_4_leaves_room_for_the_background_in_the_average_of_table_2():
    """The average F-1 is over 18 classes, Table 4 prints 17: the rest is the background's F-1."""
    averages = {key: row["average_f1"] for key, row in cells(2, "atr").items()}
    background = {
        key: 18 * averages[key] - sum(row.values()) for key, row in cells(4, "atr").items()
    }
    assert len(background) == 7
    accuracy = {key: row["pixel_accuracy"] for key, row in cells(2, "atr").items()}
    for key, f1 in background.items():
        # Background is the easiest class: above the accuracy over all pixels, below 100 %.
        assert accuracy[key] < f1 < 100, key


@pytest.mark.parametrize(
    ("ours", "theirs", "metric", "gain"),
    [  # the differences that section 4 of the paper states in words
        ("horse.lg_lstm", "horse.sps", "pixel_accuracy", 9.47),
        ("horse.lg_lstm", "horse.hc", "pixel_accuracy", 3.74),
        ("horse.lg_lstm", "horse.joint", "pixel_accuracy", 2.43),
        ("horse.lg_lstm", "horse.hc", "mean_iou", 6.75),
        ("horse.lg_lstm", "horse.joint", "mean_iou", 3.71),
        ("cow.lg_lstm", "cow.joint", "mean_iou", 5.61),
        ("horse.lg_lstm", "horse.vgg16", "mean_iou", 4.60),
        ("horse.lg_lstm", "horse.extra_conv", "mean_iou", 2.78),
        ("cow.lg_lstm", "cow.extra_conv", "mean_iou", 4.86),
        ("cow.lg_lstm", "cow.local2", "mean_iou", 4.19),
        ("cow.lg_lstm", "cow.local4", "mean_iou", 2.94),
        ("horse.lg_lstm", "horse.wo_global", "mean_iou", 1.27),
        ("cow.lg_lstm", "cow.wo_global", "mean_iou", 1.81),
        ("atr.lg_lstm_more", "atr.co_cnn_more", "average_f1", 3.98),
    ],
)
def test_gains_that_the_text_states(ours, theirs, metric, gain):
    rows = paper.rows()
    assert rows[ours][metric] - rows[theirs][metric] == pytest.approx(gain, abs=1e-9)


def test_metrics_exist_for_every_column():
    names = {"horse": "horse", "cow": "cow", "atr": "atr", "fashionista": "atr"}
    for table in paper.tables():
        classes = label_set(names[table.dataset]).names
        metrics = Metrics(np.eye(len(classes), dtype=int), classes)
        assert all(metrics.value(metric) == 1 for metric in table.columns), table.title


def test_models_know_their_row():
    known = {
        "horse": "horse.lg_lstm",
        "cow_local2": "cow.local2",
        "horse_wo_global": "horse.wo_global",
        "horse_vgg16": "horse.vgg16",
        "atr_more": "atr.lg_lstm_more",
        "atr_co_cnn": "atr.co_cnn",
        "fashionista": "fashionista.lg_lstm",
        "fashionista_largefov": None,
        "demo": None,
    }
    assert {name: paper.row_of_model(name) for name in known} == known


def test_every_row_of_table_5_has_a_model():
    registry = pytest.importorskip("lglstm.prototxt_gen.registry")
    rows = {paper.row_of_model(name) for name in registry.MODELS}
    for block in paper.blocks_of(5):
        assert {row.key for row in block.rows} <= rows


def test_comparison_leaves_empty_what_is_not_there():
    metrics = Metrics(np.diag([9, 0, 1, 1, 0]), label_set("horse").names)
    by_metric = {cell.metric: cell for cell in paper.compare(metrics, "horse.sps")}
    assert by_metric["iou.body"].difference == pytest.approx(100 - 69.74)
    assert by_metric["iou.head"].ours is None and by_metric["iou.head"].difference is None
    assert by_metric["mean_iou"].paper is None and by_metric["mean_iou"].difference is None


def test_outside_is_by_more_than_the_tolerance_and_on_both_sides():
    cell = lambda paper_value, ours: paper.Cell("mean_iou", "IOU", paper_value, ours)  # noqa: E731
    within = [cell(68.73, 68.23), cell(68.73, 69.23), cell(None, 10), cell(None, None)]
    beyond = [cell(68.73, 68.22), cell(68.73, 69.24), cell(68.73, None)]
    assert paper.outside(within + beyond, 0.5) == beyond


def test_wrong_names_are_answered_with_the_nearest():
    with pytest.raises(InputError, match="no row horse.lglstm; did you mean horse.lg_lstm"):
        paper.find_row("horse.lglstm")
    with pytest.raises(InputError, match="no Table 6"):
        paper.blocks_of(6)
    metrics = Metrics(np.eye(5, dtype=int), label_set("horse").names)
    with pytest.raises(InputError, match="row atr.co_cnn has numbers for the classes bag, belt"):
        paper.compare(metrics, "atr.co_cnn")


@pytest.mark.parametrize("block", paper.tables(), ids=lambda t: f"{t.number}-{t.dataset}")
@pytest.mark.parametrize("measured", [False, True])
def test_a_table_is_whole_in_80_columns(block, measured):
    ours = dict.fromkeys(block.columns, 12.34)
    results = {block.rows[-1].key: ours} if measured else {}
    (table,) = paper_tables(block, results, 80)
    console = plain_console(width=80, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    for row in block.rows:
        for percent in row.cells.values():
            assert number(percent) in text
    assert text.count("12.34") == (len(block.columns) if measured else 0)
    assert measured == ("ours" in text)


def test_a_table_of_too_many_columns_is_divided_and_loses_none():
    (block,) = paper.blocks_of(4)
    results = {row.key: dict.fromkeys(block.columns, 12.34) for row in block.rows}
    tables = paper_tables(block, results, 80)
    assert len(tables) > 1
    headings = [column.header for table in tables for column in table.columns[1:]]
    assert headings == list(block.columns.values())
