"""A picture of a net: blocks of layers, in the colors of what they are, from left to right.

Block heights follow the size of the maps, so that an encoder narrows and a decoder widens.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lglstm.caffe_files.costs import MeasuredLayer
from lglstm.common.errors import InputError
from lglstm.common.files import atomic_path
from lglstm.common.plotting import (
    Axes,
    FancyArrowPatch,
    FancyBboxPatch,
    Figure,
    Patch,
    plain_style,
)
from lglstm.prototxt_gen.summary import Summary, group

COLORS = {
    "data": "#8d99a6",
    "backbone": "#4f7cac",
    "image labels": "#9a6fb0",
    "transition": "#e0a030",
    "LG-LSTM": "#d2603a",
    "extra convolutions": "#3f9c8f",
    "prediction": "#5a9e4b",
    "loss": "#8c3b4a",
}
TRUNK = ("data", "backbone", "transition", "LG-LSTM", "extra convolutions")
WIDTH, GAP = 1.0, 0.42  # of a block, and between two, in the picture's units
INCHES = 0.8  # per unit
ARC = 0.24  # how far an arc bends, relative to its length


@dataclass
class Block:
    """Layers drawn as one box: `title` above the lines of `text`; (x, y) is the center."""

    key: str
    part: str
    layers: list[MeasuredLayer] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0
    height: float = 0.0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the maps that the block computes; 1×1 for vectors."""
        tops = [layer.tops[0] for layer in self.learned or self.layers if layer.tops]
        shapes = [shape for shape in tops if len(shape) == 4]
        return shapes[-1][2:] if shapes else (1, 1)

    @property
    def learned(self) -> list[MeasuredLayer]:
        """The layers whose weights are learned."""
        return [layer for layer in self.layers if layer.blobs and not layer.is_fixed]


Link = tuple[Block, Block]


def draw(summary: Summary, destination: Path) -> None:
    """Write the picture of a net; the suffix of `destination` (.png, .svg, .pdf) says its kind."""
    blocks = collect(summary.layers)
    if not any(block.part in TRUNK for block in blocks.values()):
        raise InputError(f"net {summary.name}: has no layers to draw; correct the prototxt")
    with plain_style():
        _draw(summary, blocks, destination)


def _draw(summary: Summary, blocks: dict[str, Block], destination: Path) -> None:
    links = connections(blocks)
    place(blocks, links)
    arcs = [target.x - source.x for source, target in links if goes_over(source, target)]
    right = max(block.x for block in blocks.values()) + WIDTH
    top = max(block.height for block in blocks.values()) / 2 + 1.7 + ARC / 2 * max(arcs, default=0)
    bottom = min(block.y - block.height / 2 for block in blocks.values()) - 0.3
    figure = Figure(figsize=(right * INCHES + 0.4, (top - bottom) * INCHES), dpi=150)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axes.set(xlim=(-WIDTH, right), ylim=(bottom, top), aspect="equal")
    axes.axis("off")
    for source, target in links:
        connect(axes, source, target)
    for block in blocks.values():
        paint(axes, block)
    bracket(axes, blocks)
    title(axes, summary, blocks, top)
    with atomic_path(destination) as temporary:
        figure.savefig(temporary)


def collect(layers: list[MeasuredLayer]) -> dict[str, Block]:
    """Group the layers of a net into blocks, in order of their first layer."""
    blocks: dict[str, Block] = {}
    stage = ""
    for layer in layers:
        part = group(layer)
        if layer.type in ("Silence", "ImageLabels", "Accuracy"):
            continue
        if part == "backbone" and layer.type in ("Convolution", "Deconvolution"):
            # conv4_1, conv4_2 → conv4; up3_whole begins decoder3
            stage = re.sub(r"_(\d+|whole)$", "", layer.name).replace("up", "decoder")
        number = re.search(r"\d+", layer.name)
        key = {
            "backbone": stage or layer.name,
            "LG-LSTM": layer.name,
            "extra convolutions": f"extra{number.group() if number else ''}",
            "prediction": f"score{number.group() if number else ''}",
            "loss": layer.name,
        }.get(part, part)
        blocks.setdefault(key, Block(key, part)).layers.append(layer)
    return blocks


def connections(blocks: dict[str, Block]) -> list[Link]:
    """List pairs of blocks of which the second reads what the first makes."""
    makers = {
        top: block
        for block in blocks.values()
        for layer in block.layers
        for top in layer.message.top
    }
    pairs = {}
    for block in blocks.values():
        for bottom in (bottom for layer in block.layers for bottom in layer.message.bottom):
            maker = makers.get(bottom)
            if maker and maker is not block and bottom != "label":
                pairs[maker.key, block.key] = (maker, block)
    return list(pairs.values())


def place(blocks: dict[str, Block], links: list[Link]) -> None:
    """Give every block its place: the trunk in a row, predictions, labels and losses below it."""
    unit = math.log2(max(2, *(max(block.size) for block in blocks.values())))
    trunk = [block for block in blocks.values() if block.part in TRUNK]
    for i, block in enumerate(trunk):
        block.x = i * (WIDTH + GAP)
        block.height = 0.6 + 2.7 * math.log2(max(2, *block.size)) / unit
    lowest = -max(block.height for block in trunk) / 2
    for block in blocks.values():
        # In an edited net a block may have nothing that leads to it.
        feeders = [source for source, target in links if target is block] or [trunk[-1]]
        if block.part == "prediction":
            block.x = max((source.x for source in feeders if source in trunk), default=trunk[-1].x)
            block.y, block.height = lowest - 1.15, 1.05
        elif block.part == "image labels":
            block.x, block.y, block.height = feeders[0].x, lowest - 0.9, 1.3
        elif block.part == "loss":
            block.x, block.y, block.height = feeders[0].x, feeders[0].y - 1.35, 0.75


def paint(axes: Axes, block: Block) -> None:
    """Draw a block's box and its words."""
    color = COLORS[block.part]
    box = FancyBboxPatch(
        (block.x - WIDTH / 2, block.y - block.height / 2),
        WIDTH,
        block.height,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=color,
        edgecolor="white",
        linewidth=1.2,
        zorder=3,
    )
    axes.add_patch(box)
    head, *lines = words(block)
    axes.text(
        block.x,
        block.y,
        "\n".join([rf"$\bf{{{head}}}$", *lines]),
        color="white",
        fontsize=6.6,
        ha="center",
        va="center",
        linespacing=1.35,
        zorder=4,
        parse_math=True,
    )
    if block.part not in ("prediction", "loss", "image labels"):
        axes.text(
            block.x,
            block.y + block.height / 2 + 0.08,
            "×".join(map(str, block.size)),
            fontsize=6.2,
            color="#555555",
            ha="center",
            va="bottom",
        )


def words(block: Block) -> list[str]:
    """The words in a block: its name, then what it holds."""
    name = in_math(block.key)
    if block.part == "data":
        return ["image", "BGR", "− mean"]
    if block.part == "LG-LSTM":
        number = in_math(block.key.removeprefix("lg_lstm"))
        return [rf"LG{{-}}LSTM\ {number}", *lstm_words(block)]
    if block.part == "image labels":
        values = [f"{size} values" for size in block.layers[-1].tops[0][1:2]]
        return ["labels", "FC, softmax", *values]
    if block.part == "loss":
        return [name]
    if block.part == "transition":
        return ["transition", *lstm_words(block)]
    if block.part == "prediction":
        return [name, "1×1", *(str(size) for x in block.learned[:1] for size in x.tops[0][1:2])]
    return [name, *convolution_words(block.learned), *extras(block)]


def in_math(name: str) -> str:
    """A layer's name as matplotlib's mathematics, which is how a part of a text becomes bold."""
    # Its mathematics knows no letters of later planes of Unicode.
    plain = re.sub(r"[^\w.-]|[\U00020000-\U0010ffff]", "·", name) or "·"
    return plain.replace("_", r"\_")


def lstm_words(block: Block) -> list[str]:
    """How many LSTMs of how many cells, and the grid of the global cells."""
    options = next((x.options for x in block.layers if x.type.startswith("LGLSTM")), None)
    if options is None:
        return []
    size = options["global_grid"]
    grid = f"global {size}×{size}" if size else "no global"
    return [f"{options['neighbors']} + 1 LSTMs", f"{options['num_output']} cells", grid]


def convolution_words(layers: list[MeasuredLayer]) -> list[str]:
    """`2 × 5×5` and the filters, for the convolutions of a block."""
    layers = [layer for layer in layers if layer.type in ("Convolution", "Deconvolution")]
    if not layers:
        return []
    kernels = [layer.blobs[0][-1] for layer in layers]
    filters = list(dict.fromkeys(layer.blobs[0][0] for layer in layers))
    count = f"{len(layers)} × " if len(layers) > 1 else ""
    lines = [f"{count}{kernels[0]}×{kernels[0]}", ", ".join(map(str, filters))]
    dilation = max(layer.options["dilation"][0] for layer in layers)
    return lines + ([f"dilated {dilation}"] if dilation > 1 else [])


def extras(block: Block) -> list[str]:
    """The other things worth a word in a backbone block."""
    kinds = [layer.type for layer in block.layers]
    shown = (("Pooling", "pool"), ("Dropout", "dropout"), ("Eltwise", "+ sum"))
    return [word for kind, word in shown if kind in kinds]


def goes_over(source: Block, target: Block) -> bool:
    """Whether a connection skips blocks of the trunk, which an arc must pass over."""
    trunk = ("data", "backbone")
    return source.part in trunk and target.part in trunk and target.x - source.x > 2 * WIDTH


def connect(axes: Axes, source: Block, target: Block) -> None:
    """Draw an arrow: straight to a neighbor, in an arc over what lies between, down to a loss."""
    style: dict[str, Any] = {
        "arrowstyle": "-|>",
        "mutation_scale": 7,
        "linewidth": 0.9,
        "color": "#777777",
    }
    if goes_over(source, target):
        above = [block.y + block.height / 2 + 0.32 for block in (source, target)]
        start, end = (source.x, above[0]), (target.x, above[1])
        style |= {"connectionstyle": f"arc3,rad={-ARC}", "color": COLORS[source.part]}
    elif source.part == "image labels" and target.x > source.x:
        start = (source.x + WIDTH / 2, source.y)
        end = (target.x, -target.height / 2)
        if target.part == "prediction":
            end = (target.x - WIDTH / 2, target.y)
        style |= {"connectionstyle": "arc3,rad=0.12", "color": COLORS[source.part]}
    elif source.x == target.x:
        start = (source.x, source.y - source.height / 2)
        end = (target.x, target.y + target.height / 2)
    else:
        start, end = (source.x + WIDTH / 2, source.y), (target.x - WIDTH / 2, target.y)
    axes.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, zorder=1, **style))


def bracket(axes: Axes, blocks: dict[str, Block]) -> None:
    """Mark LG-LSTM layers that share their weights."""
    layers = [block for block in blocks.values() if block.part == "LG-LSTM" and block.learned]
    if len(layers) < 2:
        return
    first, last = layers[0], layers[-1]
    y = first.height / 2 + 0.42
    left, right = first.x - WIDTH / 2, last.x + WIDTH / 2
    axes.plot([left, left, right, right], [y, y + 0.12, y + 0.12, y], color="#555555", lw=0.9)
    shapes = [" × ".join(map(str, s)) for s in first.learned[0].blobs]
    shared = first.learned[0].param_names[0] == last.learned[0].param_names[0]
    words = "shared weights" if shared else "each with weights"
    text = f"{words} {' and '.join(shapes)}"
    axes.text((left + right) / 2, y + 0.2, text, fontsize=6.6, ha="center", color="#555555")


def title(axes: Axes, summary: Summary, blocks: dict[str, Block], top: float) -> None:
    """Write the name, the totals and the legend."""
    axes.text(-WIDTH / 2, top - 0.15, summary.name, fontsize=12, weight="bold", va="top")
    totals = (
        f"{summary.weights / 1e6:.2f} M weights · {summary.multiply_adds / 1e9:.2f} G multiply-adds"
        f" per image · {summary.gpu_bytes / 2**30:.2f} GiB to train with batch {summary.batch}"
    )
    axes.text(-WIDTH / 2, top - 0.62, totals, fontsize=8, va="top", color="#444444")
    parts = dict.fromkeys(block.part for block in blocks.values())
    handles = [Patch(color=COLORS[part], label=part) for part in parts]
    axes.legend(
        handles=handles,
        loc="upper right",
        ncols=len(handles),
        frameon=False,
        fontsize=7.5,
        handlelength=1,
        columnspacing=1.2,
    )
