"""Line charts as inline SVG, for the report: no script, no outside font, readable when printed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

WIDTH, HEIGHT = 680, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 28, 14, 44
MAX_POINTS = 600
"""A curve is thinned to so many points: more than the chart has pixels is waste."""


@dataclass(frozen=True)
class Curve:
    """One line: name in the legend, CSS class, points, and whether the points are marked."""

    name: str
    style: str
    points: Sequence[Point]
    marked: bool = False


def line_chart(
    curves: Sequence[Curve],
    *,
    title: str,
    x_label: str,
    y_label: str,
    whole_x: bool = False,
    log_y: bool = False,
) -> str:
    """Return an <svg> with axes, grid and the curves; `title` is what a screen reader says.

    whole_x: label every x of the first curve instead of round numbers.
    log_y: a logarithmic axis, if all y are positive.
    """
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points]
    x_ticks = sorted({x for x, _ in curves[0].points}) if whole_x else ticks(min(xs), max(xs))
    log_y = log_y and min(ys) > 0
    y_ticks = log_ticks(min(ys), max(ys)) if log_y else ticks(min(ys), max(ys))
    height = math.log if log_y else float
    x_range = (min(*xs, *x_ticks), max(*xs, *x_ticks))
    y_range = (height(y_ticks[0]), height(y_ticks[-1]))

    def place(point: Point) -> Point:
        x = LEFT + _share(point[0], x_range) * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - _share(height(point[1]), y_range) * (HEIGHT - TOP - BOTTOM)
        return x, y

    parts = [_grid_line(place((x_range[0], y))[1], y) for y in y_ticks]
    parts += [_x_tick(place((x, y_ticks[0]))[0], x) for x in x_ticks]
    parts += [_line(curve, [place(point) for point in thin(curve.points)]) for curve in curves]
    parts.append(
        f'<text class="axis" x="{(WIDTH + LEFT) / 2:.0f}" y="{HEIGHT - 6}">{escape(x_label)}</text>'
        f'<text class="axis" transform="translate(13 {(HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)">'
        f"{escape(y_label)}</text>"
    )
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>{_legend(curves)}"
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers, 1, 2 or 5 times a power of ten apart, around low … high."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(power * m for m in (1, 2, 5, 10) if power * m * count >= span)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten around low … high (positive), with 2 and 5 times them if those are few."""
    first, last = math.floor(math.log10(low)), min(math.ceil(math.log10(high)), 308)
    factors = (1, 2, 5) if last - first < 4 else (1,)
    powers = range(first, last + 1, 1 + (last - first) // 8)
    known = [float(f"{factor}e{power}") for power in powers for factor in factors]
    start = max((k for k, value in enumerate(known) if value <= low), default=0)
    end = next((k for k, value in enumerate(known) if value >= high), len(known) - 1)
    return known[start : max(end, start + 1) + 1]


def thin(points: Sequence[Point]) -> list[Point]:
    """At most MAX_POINTS of the points, each the mean of its neighbors in an even split."""
    if len(points) <= MAX_POINTS:
        return list(points)
    bounds = [len(points) * k // MAX_POINTS for k in range(MAX_POINTS + 1)]
    groups = [points[a:b] for a, b in itertools.pairwise(bounds)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]


def smooth(points: Sequence[Point], window: int) -> list[Point]:
    """The mean of the last `window` values at each point."""
    smoothed, total = [], 0.0
    for k, (x, y) in enumerate(points):
        total += y - (points[k - window][1] if k >= window else 0.0)
        smoothed.append((x, total / min(k + 1, window)))
    return smoothed


def _share(value: float, bounds: tuple[float, float]) -> float:
    low, high = bounds
    return (value - low) / ((high - low) or 1.0)


def _grid_line(y: float, value: float) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick end" x="{LEFT - 8}" y="{y + 4:.1f}">{value:g}</text>'
    )


def _x_tick(x: float, value: float) -> str:
    text = f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"
    return f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}">{text}</text>'


def _line(curve: Curve, placed: Sequence[Point]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    line = f'<polyline class="curve {curve.style}" points="{path}"/>'
    if not curve.marked:
        return line
    return line + "".join(
        f'<circle class="{curve.style}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in placed
    )


def _legend(curves: Sequence[Curve]) -> str:
    if len(curves) < 2:
        return ""
    entries = "".join(
        f'<li><span class="key {curve.style}"></span>{escape(curve.name)}</li>' for curve in curves
    )
    return f'<ul class="keys">{entries}</ul>'
