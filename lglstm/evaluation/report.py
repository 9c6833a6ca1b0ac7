"""The HTML report: one file that opens from disk, with everything inside and nothing from outside.

Numbers beside the paper's, bars per class, the confusion matrix, the best, median and worst images,
the layers' mean IoU and the loss curve. Without script all numbers and pictures are still there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path

import numpy as np

from lglstm.common.files import write_text
from lglstm.evaluation import charts
from lglstm.evaluation.evaluation_json import Provenance
from lglstm.evaluation.evaluator import Evaluation
from lglstm.evaluation.gallery import gallery
from lglstm.evaluation.html import choices, swatch
from lglstm.evaluation.metrics import PER_CLASS, Metrics
from lglstm.evaluation.paper import Cell, find_row, percent, test_set
from lglstm.evaluation.tables import number, signed

FILE = "report.html"
ASSETS = Path(__file__).with_name("report_assets")

# The file must not fetch anything, even if a name in it were to contain markup.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

Losses = Mapping[str, Mapping[int, float]]
"""Name of a loss curve → iteration → value."""


def write(
    path: Path,
    provenance: Provenance,
    evaluation: Evaluation,
    cells: Sequence[Cell],
    losses: Losses | None = None,
) -> None:
    """Write the report of one evaluation; `losses` are the curves of its training run."""
    write_text(path, render(provenance, evaluation, cells, losses or {}))


def render(
    provenance: Provenance, evaluation: Evaluation, cells: Sequence[Cell], losses: Losses
) -> str:
    """Return the whole HTML document."""
    title = f"{_name(provenance)}: object parsing, evaluated"
    sections = [
        _comparison(cells, provenance.row),
        _bars(evaluation, provenance.row),
        _matrix(evaluation),
        _layers(evaluation.layers),
        gallery(evaluation),
        _losses(losses),
    ]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{_asset("report.css")}</style>
<noscript><style>.controls {{ display: none; }}</style></noscript>
</head>
<body>
<a class="skip" href="#content">Skip to the numbers</a>
{_header(provenance, evaluation, cells)}
<main id="content">
{"".join(sections)}
</main>
{_footer(evaluation)}
<script>{_asset("report.js")}</script>
</body>
</html>
"""


# --------------------------------------------------------------------------------- sections


def _header(provenance: Provenance, evaluation: Evaluation, cells: Sequence[Cell]) -> str:
    made_by = (
        f"weights {provenance.weights} ({provenance.weights_sha256[:12]})"
        if provenance.weights and provenance.weights_sha256
        else (f"label maps in {provenance.predictions}")
    )
    finished = f"{datetime.fromisoformat(provenance.finished):%-d %B %Y, %H:%M} UTC"
    line = f"{len(evaluation.images):,} images of {provenance.list} · {made_by} · {finished}"
    warnings = "".join(
        f'<p class="warning" role="note">{escape(sentence)}</p>' for sentence in provenance.warnings
    )
    totals = [cell for cell in cells if "." not in cell.metric][:5]
    figures = "".join(_figure(cell, provenance.row) for cell in totals)
    return (
        '<header><p class="kicker">Object parsing, evaluated</p>'
        f'<h1>{escape(_name(provenance))}</h1><p class="origin">{escape(line)}</p>{warnings}'
        f'<dl class="headline">{figures}</dl></header>'
    )


def _figure(cell: Cell, row: str | None) -> str:
    against = (
        f'<dd class="against">paper {number(cell.paper)} ({_signed(cell.difference)})</dd>'
        if row
        else ""
    )
    ours = f'<dd class="big">{number(cell.ours)}</dd>'
    return f"<div><dt>{escape(cell.heading)}</dt>{ours}{against}</div>"


def _comparison(cells: Sequence[Cell], row: str | None) -> str:
    columns = ("paper", "ours", "difference") if row else ("ours",)
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    body = []
    for cell in cells:
        paper, difference = number(cell.paper), _signed(cell.difference)
        ours = f'<td class="ours">{number(cell.ours)}</td>'
        numbers = f"<td>{paper}</td>{ours}<td>{difference}</td>" if row else ours
        body.append(f'<tr><th scope="row">{escape(cell.heading)}</th>{numbers}</tr>')
    what = f"In percent, next to the paper's {row}: {test_set(row)}." if row else "In percent."
    return (
        "<section><h2>In the paper's form</h2>"
        f"<p>{escape(what)} A dash marks a missing number.</p>"
        '<div class="scroll"><table class="numbers">'
        '<caption class="visually-hidden">Paper, ours and difference</caption>'
        f'<thead><tr><th scope="col">Metric</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div></section>"
    )


def _bars(evaluation: Evaluation, row: str | None) -> str:
    paper = find_row(row) if row else {}
    first = next((key.partition(".")[0] for key in paper if "." in key), "iou")
    metrics = {first: PER_CLASS[first], **PER_CLASS}
    tables = "".join(
        f'<div id="class-{key}">{_bar_table(evaluation, key, name, paper)}</div>'
        for key, name in metrics.items()
    )
    marker = (
        '<li><span class="key ours"></span>ours</li><li><span class="key paper"></span>paper</li>'
    )
    keys = f'<ul class="legend">{marker}</ul>' if any("." in key for key in paper) else ""
    return (
        "<section><h2>Class by class</h2>"
        f'<div class="controls">{choices("class-metric", "Metric", metrics, "class")}</div>'
        f"{keys}{tables}</section>"
    )


def _bar_table(
    evaluation: Evaluation, key: str, name: str, paper: Mapping[str, float | None]
) -> str:
    has_paper = any(f"{key}.{label}" in paper for label in evaluation.labels.names)
    head = f'<th scope="col">{name}, ours</th>'
    head += '<th scope="col">paper</th>' if has_paper else ""
    rows = []
    for k, label in enumerate(evaluation.labels.names):
        ours = percent(evaluation.metrics.value(f"{key}.{label}"))
        theirs = paper.get(f"{key}.{label}")
        tick = f'<span class="tick" style="left:{theirs:.2f}%"></span>' if theirs else ""
        value = f'<td class="value">{number(theirs)}</td>' if has_paper else ""
        rows.append(
            f'<tr><th scope="row">{swatch(evaluation.labels, k)}{escape(label)}</th>'
            f'<td aria-hidden="true"><span class="track">'
            f'<span class="fill" style="width:{ours or 0:.2f}%"></span>{tick}</span></td>'
            f'<td class="value">{number(ours)}</td>{value}</tr>'
        )
    return (
        f'<table class="bars"><caption class="visually-hidden">{name} of each class, in percent'
        f'</caption><thead><tr><th scope="col">Class</th><th aria-hidden="true"></th>{head}</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _matrix(evaluation: Evaluation) -> str:
    options = {"truth": "of each true class", "predicted": "of each predicted class"}
    names, counts = evaluation.labels.names, evaluation.metrics.matrix
    tables = "".join(
        f'<div id="matrix-{key}">'
        f'<div class="scroll">{_matrix_table(names, counts, key)}</div></div>'
        for key in options
    )
    roomy = " roomy" if len(names) <= 8 else ""
    return (
        "<section><h2>Which class is taken for which</h2>"
        "<p>Rows are the truth, columns the prediction; a cell is the percentage of its row's or "
        "column's pixels. With the table in focus, the arrow keys go from cell to cell.</p>"
        f'<div class="controls">{choices("matrix-share", "Percent", options, "matrix")}</div>'
        f'<div class="matrix{roomy}">{tables}</div>'
        '<p id="readout" class="readout" aria-live="polite">'
        "</p></section>"
    )


def _matrix_table(names: Sequence[str], counts: np.ndarray, share: str) -> str:
    totals = counts.sum(axis=1, keepdims=True) if share == "truth" else counts.sum(axis=0)
    percents = 100 * counts / np.maximum(totals, 1)
    head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in names)
    rows = []
    for truth, true_name in enumerate(names):
        cells = "".join(
            _matrix_cell(percents[truth, k], int(counts[truth, k]), true_name, name, share)
            for k, name in enumerate(names)
        )
        rows.append(f'<tr><th scope="row">{escape(true_name)}</th>{cells}</tr>')
    return (
        '<table tabindex="0"><caption class="visually-hidden">Confusion matrix: percent of each '
        f"{'true' if share == 'truth' else 'predicted'} class</caption>"
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _matrix_cell(value: float, count: int, truth: str, predicted: str, share: str) -> str:
    whole = f"true {truth}" if share == "truth" else f"predicted {predicted}"
    fate = "predicted correctly" if truth == predicted else f"{truth} predicted as {predicted}"
    says = f"{fate}: {value:.2f} % of the pixels of {whole}, {count:,} pixels"
    # White to the blue of "ours"; a square root lets the rare mistakes be seen.
    strength = (value / 100) ** 0.5
    red, green, blue = (round(255 + (end - 255) * strength) for end in (31, 90, 148))
    ink = "#fff" if strength > 0.82 else "#000"  # at least 4.5 : 1 on either side
    text = f"{value:.0f}" if value >= 0.5 else ("·" if count else "")
    return (
        f'<td style="background:rgb({red},{green},{blue});color:{ink}" '
        f'data-says="{escape(says)}">{text}</td>'
    )


def _layers(layers: Mapping[str, Metrics]) -> str:
    if not layers:
        return ""
    values = [percent(metrics.value("mean_iou")) for metrics in layers.values()]
    points = [(float(k), value) for k, value in enumerate(values, start=1) if value is not None]
    chart = charts.line_chart(
        [charts.Curve("mean IoU", "ours", points, marked=True)],
        title="Mean IoU after each LG-LSTM layer",
        x_label="LG-LSTM layer",
        y_label="mean IoU, percent",
        whole_x=True,
    )
    rows = "".join(
        f'<tr><th scope="row">layer {k}</th><td>{number(value)}</td></tr>'
        for k, value in enumerate(values, start=1)
    )
    return (
        "<section><h2>After each LG-LSTM layer</h2><p>Every layer has a classifier of its own in "
        "training; this is what each of them alone would predict.</p>"
        f'{chart}<table class="numbers"><caption class="visually-hidden">Mean IoU after each '
        'layer, in percent</caption><thead><tr><th scope="col">Prediction after</th>'
        f'<th scope="col">mean IoU</th></tr></thead><tbody>{rows}</tbody></table></section>'
    )


def _losses(losses: Losses) -> str:
    curves: list[charts.Curve] = []
    for name, values in losses.items():
        points = [(float(k), v) for k, v in sorted(values.items()) if np.isfinite(v)]
        if len(points) < 2:
            continue
        if len(points) > 60 and not curves:
            curves.append(charts.Curve(name, "faint", points))
            window = max(2, len(points) // 30)
            name, points = f"{name}, smoothed", charts.smooth(points, window)
        style = "paper" if any(curve.style == "ours" for curve in curves) else "ours"
        curves.append(charts.Curve(name, style, points, marked=len(points) <= 20))
    if not curves:
        return ""
    chart = charts.line_chart(
        curves,
        title="Loss over the training iterations",
        x_label="iteration",
        y_label="loss",
        log_y=True,
    )
    return f"<section><h2>Training</h2>{chart}</section>"


def _footer(evaluation: Evaluation) -> str:
    pixels = int(evaluation.metrics.matrix.sum())
    return (
        f"<footer><p>Counted are {pixels:,} pixels at the size of the true label maps, ignored "
        "ones left out. Averages are plain means over all classes, background included; a class "
        "that is neither in the truth nor in the prediction is dropped. Fg is the IoU of all parts "
        f"together against background.</p></footer>"
    )


def _name(provenance: Provenance) -> str:
    return provenance.model or Path(provenance.predictions).name


def _signed(points: float | None) -> str:
    return signed(points).replace("-", "−")


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
