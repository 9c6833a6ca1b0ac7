"""Colors of the ready label sets, and the page that shows them.

python scripts/label_sets.py            writes docs/labels.md and docs/labels.svg
python scripts/label_sets.py --check    fails if they are out of date
python scripts/label_sets.py --recolor  gives the ready sets new colors first

New colors are those of lglstm/common/colors.py, each for the class whose color was most like it; so
running it again changes nothing. `lglstm models generate` then brings them into models/.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from scipy.optimize import linear_sum_assignment

from lglstm.common.colors import SIGHTS, WANTED, Color, as_seen, differences, distinct_colors
from lglstm.common.files import write_text
from lglstm.common.labels import (
    LABEL_SETS,
    READY_SETS,
    RESERVED_COLORS,
    LabelSet,
    read_label_set,
)

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, PICTURE = DOCS / "labels.md", DOCS / "labels.svg"

HEAD = """\
# Label sets

What the ids of a label map mean: 0 is the first name of a set, 255 is "unknown" in all of them. The
sets below are ready to be named, as in `--labels lip`; your own is a JSON file of the same form
([own_classes.md](own_classes.md)).

```json
{{"name": "leaves", "names": ["background", "leaf", "stem"]}}
```

| key | what | without it |
| --- | --- | --- |
| `name` | what the set is called | it must be there |
| `names` | 2 to 255 classes, one name per id | it must be there |
| `colors` | `[red, green, blue]` per id, but white (for 255) and magenta (for others) | see below |
| `mirror_swaps` | pairs of ids that trade places in a mirror: `[[9, 10]]` | nothing is swapped |
| `ignored` | 255 | 255 |

Only ids count: label maps with other palettes stay readable.

## Colors

No two classes of a set look closer than {wanted:g} (CIEDE2000) to normal sight, white and magenta
included, and they differ as far as possible for people without red cones (protanopia) or without
green ones (deuteranopia). A set of your own without `colors` gets them in the same way, and up to
100 classes keep that distance. The closest pair of each set, measured in how each of the three
kinds of eyes sees it (simulated, `lglstm/common/colors.py`):

{differences}

To eyes without red or green cones only shades of two hues are left: 18 to 21 classes can be told
apart side by side, 56 cannot all be. There the names must help, which stand beside the colors in
every legend and table.

![All classes, each in normal sight, in protanopia and in deuteranopia](labels.svg)
"""

ROW, COLUMN, SWATCH = 18, 250, 22


def recolor() -> None:
    """Write the ready sets with distinct colors."""
    for path in sorted(READY_SETS.glob("*.json")):
        labels = read_label_set(path)
        data = labels.to_json() | {"colors": assigned(labels)}
        write_text(path, LabelSet.from_json(data, str(path)).to_text())
        print(path)


def assigned(labels: LabelSet) -> list[Color]:
    """Distinct colors for the classes of a set, each as like the class's present one as can be."""
    colors = distinct_colors(labels.num_classes, RESERVED_COLORS)
    count = labels.num_classes
    unlike = differences([*labels.colors, *colors], "normal")[:count, count:]
    unlike[0, 0] = -1e6  # the background stays black
    return [colors[k] for k in linear_sum_assignment(unlike)[1]]


def page() -> str:
    """Return the text of docs/labels.md."""
    parts = [
        HEAD.format(
            wanted=WANTED,
            differences=_table(
                ("set", "classes", *SIGHTS),
                [
                    (f"`{name}`", str(labels.num_classes), *_closest(labels))
                    for name, labels in LABEL_SETS.items()
                ],
            ),
        )
    ]
    for name, labels in LABEL_SETS.items():
        rows = [
            (str(k), label, "`#" + bytes(color).hex() + "`")
            for k, (label, color) in enumerate(zip(labels.names, labels.colors, strict=True))
        ]
        parts.append(f"## {name}\n\n{_table(('id', 'name', 'color'), rows)}\n{_swaps(labels)}")
    return "\n".join(parts)


def _closest(labels: LabelSet) -> list[str]:
    found = []
    for sight in SIGHTS:
        apart = differences(labels.colors, sight)
        found.append(f"{apart[~np.eye(len(apart), dtype=bool)].min():.1f}")
    return found


def _swaps(labels: LabelSet) -> str:
    if not labels.mirror_swaps:
        return ""
    pairs = ", ".join(f"{a} ↔ {b}" for a, b in labels.mirror_swaps)
    return f"\nA mirror swaps {pairs}.\n"


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def picture() -> str:
    """Return the text of docs/labels.svg: a column per set, three swatches per class."""
    height = ROW * (max(labels.num_classes for labels in LABEL_SETS.values()) + 3)
    width = COLUMN * len(LABEL_SETS)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fafaf8"/>',
    ]
    for column, (name, labels) in enumerate(LABEL_SETS.items()):
        left = COLUMN * column + 10
        lines.append(f'<text x="{left}" y="{ROW}" font-weight="bold">{escape(name)}</text>')
        for k, label in enumerate(labels.names):
            top = ROW * (k + 2)
            for place, sight in enumerate(SIGHTS):
                seen = np.rint(as_seen([labels.colors[k]], sight)[0] * 255).astype(np.uint8)
                lines.append(
                    f'<rect x="{left + SWATCH * place}" y="{top - 11}" width="{SWATCH}" '
                    f'height="14" fill="#{seen.tobytes().hex()}"/>'
                )
            x = left + SWATCH * len(SIGHTS) + 6
            lines.append(f'<text x="{x}" y="{top}">{k} {escape(label)}</text>')
    return "\n".join([*lines, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    parser.add_argument(
        "--recolor", action="store_true", help="give the sets new colors, then stop"
    )
    asked = parser.parse_args()
    if asked.recolor:
        recolor()
        return
    texts = {PAGE: page(), PICTURE: picture()}
    stale = [path for path, text in texts.items() if not path.is_file() or path.read_text() != text]
    if asked.check:
        sys.exit(f"out of date: {', '.join(map(str, stale))}" if stale else 0)
    for path, text in texts.items():
        write_text(path, text)
        print(path)


if __name__ == "__main__":
    main()
