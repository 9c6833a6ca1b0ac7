"""Colors of classes, measured by a CIEDE2000 of our own; the page that shows them is up to date."""

import math

import numpy as np
import pytest

import label_sets as script
from lglstm.common.colors import SIGHTS, as_seen, differences, distinct_colors
from lglstm.common.labels import LABEL_SETS, RESERVED_COLORS, LabelSet

WITH_ROOM = {"horse": 23, "cow": 23, "atr": 12, "lip": 10, "cihp": 10, "voc": 10}
"""How far apart the colors of a set can at least be without red or without green cones."""


def lab(srgb):
    """Lab under D65 of one color, sRGB 0 … 1; written from the definitions."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in srgb]
    to_xyz = (
        (0.412453, 0.357580, 0.180423),
        (0.212671, 0.715160, 0.072169),
        (0.019334, 0.119193, 0.950227),
    )
    white = (0.95047, 1.0, 1.08883)
    xyz = [sum(m * v for m, v in zip(row, linear, strict=True)) for row in to_xyz]
    x, y, z = (
        t ** (1 / 3) if (t := v / w) > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29
        for v, w in zip(xyz, white, strict=True)
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def ciede2000(one, other):
    """The difference of two Lab colors, as Sharma, Wu and Dalal (2005) write it down."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    c7 = ((math.hypot(a1, b1) + math.hypot(a2, b2)) / 2) ** 7
    g = 0.5 * (1 - math.sqrt(c7 / (c7 + 25**7)))
    a1, a2 = (1 + g) * a1, (1 + g) * a2
    c1, c2 = math.hypot(a1, b1), math.hypot(a2, b2)
    h1, h2 = (math.degrees(math.atan2(b, a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    dh = 0.0 if c1 * c2 == 0 else (h2 - h1 + 180) % 360 - 180
    if c1 * c2 == 0:
        h = h1 + h2
    else:
        h = (h1 + h2) / 2 if abs(h1 - h2) <= 180 else ((h1 + h2 + 360) / 2) % 360
    dl, dc = l2 - l1, c2 - c1
    dh_chord = 2 * math.sqrt(c1 * c2) * math.sin(math.radians(dh / 2))
    lightness, c = (l1 + l2) / 2, (c1 + c2) / 2
    cos = lambda degrees: math.cos(math.radians(degrees))  # noqa: E731
    t = 1 - 0.17 * cos(h - 30) + 0.24 * cos(2 * h) + 0.32 * cos(3 * h + 6) - 0.2 * cos(4 * h - 63)
    s_l = 1 + 0.015 * (lightness - 50) ** 2 / math.sqrt(20 + (lightness - 50) ** 2)
    s_c, s_h = 1 + 0.045 * c, 1 + 0.015 * c * t
    rotation = -2 * math.sqrt(c**7 / (c**7 + 25**7))
    rotation *= math.sin(math.radians(60 * math.exp(-(((h - 275) / 25) ** 2))))
    dl, dc, dh_chord = dl / s_l, dc / s_c, dh_chord / s_h
    return math.sqrt(dl**2 + dc**2 + dh_chord**2 + rotation * dc * dh_chord)


def closest(colors, sight):
    """The least difference of two of the colors to eyes of one kind."""
    seen = [lab(color) for color in as_seen(colors, sight)]
    return min(ciede2000(a, b) for k, a in enumerate(seen) for b in seen[:k])


@pytest.mark.parametrize(
    ("one", "other", "published"),
    [
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, 2.5, 0.0), (50.0, 0.0, -2.5), 4.3065),
        ((50.0, 2.49, -0.001), (50.0, -2.49, 0.0011), 7.2195),
        ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
        ((22.7233, 20.0904, -46.694), (23.0331, 14.973, -42.5619), 2.0373),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_difference_is_the_published_one(one, other, published):
    assert ciede2000(one, other) == pytest.approx(published, abs=1e-4)


@pytest.mark.parametrize("name", LABEL_SETS)
def test_no_two_classes_look_alike(name):
    labels = LABEL_SETS[name]
    assert closest([*labels.colors, *RESERVED_COLORS], "normal") >= 12
    for sight in ("protanopia", "deuteranopia"):
        assert closest(labels.colors, sight) >= WITH_ROOM.get(name, 5)


@pytest.mark.parametrize("count", [2, 3, 4, 7, 13, 33])
def test_a_set_of_ones_own_gets_colors_as_different(count):
    names = [str(k) for k in range(count)]
    labels = LabelSet.from_json({"name": "mine", "names": names}, "mine.json")
    assert labels.colors[0] == (0, 0, 0)
    assert closest([*labels.colors, *RESERVED_COLORS], "normal") >= 12
    assert min(closest(labels.colors, sight) for sight in SIGHTS) >= 50 / count**0.5 - 3


def test_a_hundred_classes_keep_the_distance():
    colors = distinct_colors(100, RESERVED_COLORS)
    apart = differences([*colors, *RESERVED_COLORS], "normal")
    assert apart[~np.eye(len(apart), dtype=bool)].min() >= 12


def test_what_eyes_without_some_cones_see():
    red, green, gray, white = (200, 40, 40), (40, 140, 40), (128, 128, 128), (255, 255, 255)
    for sight in SIGHTS:
        assert as_seen([gray, white], sight) == pytest.approx(
            np.array([[128 / 255] * 3, [1] * 3]), abs=1e-3
        )
    assert closest([red, green], "normal") > 50
    assert closest([red, green], "deuteranopia") < 20


@pytest.mark.parametrize("name", LABEL_SETS)
def test_the_ready_sets_have_the_colors_that_sets_of_their_size_get(name):
    labels = LABEL_SETS[name]
    assert tuple(script.assigned(labels)) == labels.colors


def test_the_page_of_the_label_sets_is_up_to_date():
    assert script.PAGE.read_text(encoding="utf-8") == script.page()
    assert script.PICTURE.read_text(encoding="utf-8") == script.picture()
