"""The HTML report in a real browser: it opens from disk, fetches nothing, and its controls work."""

import itertools
import re
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from lglstm.common.images import write_label
from lglstm.common.labels import label_set
from lglstm.evaluation import charts, gallery, paper, report
from lglstm.evaluation.evaluation_json import Provenance
from lglstm.evaluation.evaluator import Evaluation, ImageScore, evaluate_label_maps
from lglstm.evaluation.image_list import ListedImage
from lglstm.evaluation.metrics import Metrics

HORSE = label_set("horse")
COUNT = 14

# A photo's name may be anything a file system takes; none of it may become markup.
NASTY = '0<img src=x onerror="alert(1)">&'


def make_samples(folder: Path) -> list[ListedImage]:
    """Photos of two sizes with a striped truth, and predictions from nearly right to all wrong."""
    rng = np.random.default_rng(7)
    samples = []
    for k in range(COUNT):
        name = NASTY.replace("/", "") if k == 0 else f"horse_{k:02}"
        height, width = (60, 90) if k % 2 else (80, 50)
        truth = np.tile(np.repeat(np.arange(5, dtype=np.uint8), width // 5), (height, 1))
        truth[:4] = 255
        prediction = truth % 5
        wrong = rng.random(truth.shape) < k / COUNT
        prediction[wrong] = rng.integers(0, 5, wrong.sum())
        photo, label = folder / "images" / f"{name}.png", folder / "labels" / f"{name}.png"
        photo.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(photo), rng.integers(0, 256, (height, width, 3)).astype(np.uint8))
        write_label(label, truth, HORSE.palette)
        write_label(folder / "predictions" / f"{name}.png", prediction, HORSE.palette)
        samples.append(ListedImage(name, photo, label))
    return samples


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(path of the report, its evaluation)."""
    folder = tmp_path_factory.mktemp("report")
    plain = evaluate_label_maps(make_samples(folder), folder / "predictions", HORSE)
    rng = np.random.default_rng(0)
    layers = {
        name: Metrics(plain.metrics.matrix + rng.integers(0, noise, (5, 5)), HORSE.names)
        for name, noise in (("score1", 9000), ("score2", 3000), ("score", 1))
    }
    evaluation = Evaluation(HORSE, plain.metrics, plain.images, layers)
    origin = Provenance(
        model="horse", weights="runs/horse.caffemodel", weights_sha256="ab" * 32,
        predictions=str(folder / "predictions"), list="data/horse/test.txt", labels="horse",
        row="horse.lg_lstm", finished="2026-01-02T03:04:05+00:00", warnings=("something is odd",),
    )  # fmt: skip
    losses = {
        "training loss": {k: 1 / (1 + k / 300) for k in range(2000)} | {2000: float("nan")},
        "test loss": {k: 1.1 / (1 + k / 300) for k in range(0, 2000, 500)},
    }
    path = folder / "report.html"
    report.write(path, origin, evaluation, paper.compare(plain.metrics, origin.row), losses)
    return path, evaluation


# ----------------------------------------------------------------------------- without a browser


def test_everything_is_inside_and_names_are_escaped(written):
    text = written[0].read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', text)
    assert {(a or b)[:5] for a, b in sources} <= {"data:", "#cont"}
    assert "<img src=x" not in text and "&lt;img src=x" in text
    assert len(text) < 2_000_000


def test_groups_are_the_extremes_and_the_middle():
    sample = ListedImage("x", Path("x"), Path("x"))
    values = np.random.default_rng(1).permutation(101) / 100
    images = [ImageScore(sample, Path("x"), float(value), 1.0) for value in values]
    images.append(ImageScore(sample, Path("x"), None, None))
    groups = {
        name: [image.mean_iou for image in chosen]
        for name, chosen in gallery.choose(images).items()
    }
    assert groups == {
        "worst": [0.0, 0.01, 0.02, 0.03],
        "median": [0.48, 0.49, 0.5, 0.51],
        "best": [1.0, 0.99, 0.98, 0.97],
    }
    few = gallery.choose(images[:5])
    assert list(few) == ["all"] and len(few["all"]) == 5


def test_error_map_marks_wrong_pixels_and_grays_ignored_ones():
    truth = np.array([[0, 1, 255]], np.uint8)
    picture = gallery.error_map(truth, np.array([[0, 2, 2]], np.uint8))
    assert picture[0, 0, 3] == 0
    assert tuple(picture[0, 1]) == (*gallery.ERROR_COLOR, 255)
    assert tuple(picture[0, 2]) == (*gallery.IGNORED_COLOR, 255)


@pytest.mark.parametrize("bounds", [(0, 1), (0.31, 0.37), (3, 3), (-5, 12_345), (0, 0)])
def test_ticks_are_round_and_cover_the_range(bounds):
    ticks = charts.ticks(*bounds)
    assert ticks[0] <= bounds[0] and ticks[-1] >= bounds[1] and 2 <= len(ticks) <= 8
    steps = np.diff(ticks)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-9)
    assert float(f"{steps[0]:.0e}".partition("e")[0]) in (1, 2, 5)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((0.3, 7), [0.2, 0.5, 1, 2, 5, 10]),
        ((1.1, 1.3), [1, 2]),
        ((2, 2), [2, 5]),
        ((1e-3, 900), [1e-3, 1e-2, 1e-1, 1, 10, 100, 1000]),
    ],
)
def test_ticks_of_a_logarithmic_axis(bounds, expected):
    assert charts.log_ticks(*bounds) == pytest.approx(expected)


def test_logarithmic_ticks_stay_few_over_all_numbers_there_are():
    assert len(charts.log_ticks(1e-300, 1.7e308)) < 12


def test_a_logarithmic_axis_gives_equal_factors_equal_heights():
    curve = charts.Curve("loss", "ours", [(0, 100), (1, 10), (2, 1)], marked=True)
    titles = {"title": "", "x_label": "", "y_label": ""}
    drawn = charts.line_chart([curve], **titles, log_y=True)
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', drawn)]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)
    zero = charts.Curve("loss", "ours", [(0, 100), (1, 10), (2, 0)])
    assert charts.line_chart([zero], **titles, log_y=True) == charts.line_chart([zero], **titles)


def test_thinned_curves_keep_mean_and_ends():
    points = [(float(k), float(k % 7)) for k in range(5000)]
    thinned = charts.thin(points)
    assert len(thinned) == charts.MAX_POINTS
    assert np.mean(thinned, axis=0) == pytest.approx(np.mean(points, axis=0), rel=0.01)
    assert charts.smooth(points, 7)[100][1] == pytest.approx(3)


# -------------------------------------------------------------------------------- in the browser


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, driven by selenium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the package selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    # Without --no-sandbox Chromium refuses to run as root, as in most containers.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    session = webdriver.Chrome(options=options, service=service)
    yield session
    session.quit()


@pytest.fixture
def page(browser, written):
    browser.get(written[0].as_uri())
    return Page(browser)


class Page:
    """The report as a reader meets it: what is visible, and the keys that one can press."""

    def __init__(self, browser):
        self.browser = browser

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def one(self, selector):
        return self.browser.find_element("css selector", selector)

    def shown(self, selector):
        return [element for element in self.all(selector) if element.is_displayed()]

    def press(self, selector, *keys):
        self.one(selector).send_keys(*keys)

    def script(self, code):
        return self.browser.execute_script(f"return {code}")

    def wait_until(self, code):
        """Wait for what the browser does at its next frame."""
        deadline = time.monotonic() + 30
        while not self.script(code):
            assert time.monotonic() < deadline, code


def test_opens_from_disk_without_errors_or_requests(page):
    assert page.browser.title.startswith("horse")
    assert page.browser.get_log("browser") == []
    fetched = page.script("performance.getEntriesByType('resource').map(e => e.name)")
    assert all(name.startswith("data:") for name in fetched)
    assert page.script("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


def test_table_shows_paper_ours_and_difference(page, written):
    rows = [[cell.text for cell in row.find_elements("css selector", "th, td")]
            for row in page.all(".numbers tbody tr")][:8]  # fmt: skip
    iou = 100 * written[1].metrics.value("mean_iou")
    assert rows[6][:3] == ["IOU", "68.73", f"{iou:.2f}"]
    assert float(rows[6][3].replace("−", "-")) == pytest.approx(iou - 68.73, abs=0.006)
    assert page.one(".warning").text == "something is odd"
    assert "the paper's horse.lg_lstm: 227 images, selected by hand" in page.one("main").text


def test_metric_choice_changes_the_bars(page, written):
    def tail():
        (row,) = [row for row in page.shown(".bars tbody tr") if "tail" in row.text]
        return row.text.split()[1]

    tails = written[1].metrics.per_class
    assert tail() == f"{100 * tails['iou']['tail']:.2f}"
    page.all("[name=class-metric] + span")[1].click()
    assert tail() == f"{100 * tails['precision']['tail']:.2f}"
    page.press("[name=class-metric]:checked", "\ue014")  # arrow right: recall
    assert tail() == f"{100 * tails['recall']['tail']:.2f}"


def test_matrix_is_read_with_the_arrow_keys(page, written):
    matrix = written[1].metrics.matrix
    table = "#matrix-truth table"
    page.press(table, "\ue014", "\ue014", "\ue015")  # right, right, down: true head as body
    share = 100 * matrix[1, 2] / matrix[1].sum()
    expected = f"head predicted as body: {share:.2f} % of the pixels of true head"
    assert page.one("#readout").text.startswith(expected)
    assert page.one("#readout").text.endswith(f"{matrix[1, 2]:,} pixels")
    page.all("[name=matrix-share] + span")[1].click()
    assert not page.one(table).is_displayed()
    assert page.one("#matrix-predicted table").is_displayed()


def test_pictures_toggle_zoom_and_fade(page):
    assert len(page.shown("figure")) == gallery.PER_GROUP
    names = [caption.text for caption in page.shown("figcaption strong")]
    page.all("[name=images-group] + span")[2].click()
    best = [caption.text for caption in page.shown("figcaption strong")]
    assert NASTY in best and not set(best) & set(names)

    def panels():
        return {panel.text for panel in page.shown(".panel h4")}

    assert panels() == {"Truth", "Prediction"}
    for k, (view, text) in enumerate(gallery.VIEWS.items()):
        page.all("[name=view] + span")[k].click()
        assert panels() == ({"Truth", "Prediction"} if view == "side" else {text})
    page.press("#opacity", "\ue010")  # the key End
    image = page.shown(".stack img")[0]
    assert float(image.value_of_css_property("opacity")) == pytest.approx(1)
    page.press("#opacity", "\ue011")  # the key Home
    assert float(image.value_of_css_property("opacity")) == pytest.approx(0)
    width = image.size["width"]
    page.press("#zoom", "\ue010")
    assert image.size["width"] == pytest.approx(6 * width, rel=0.1)
    assert page.browser.get_log("browser") == []


def test_panels_of_one_photo_scroll_together(page):
    page.press("#zoom", "\ue010")
    scroll = "document.querySelectorAll('#images-worst figure:first-child .window')"
    page.script(f"({scroll}[0].scrollTop = 77, {scroll}[0].scrollLeft = 33)")
    page.wait_until(f"{scroll}[1].scrollTop === 77 && {scroll}[1].scrollLeft === 33")


def test_without_script_everything_is_shown(page):
    try:
        page.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        page.browser.refresh()
        assert page.shown(".controls") == []
        assert len(page.shown("figure")) == 3 * gallery.PER_GROUP
        assert len(page.shown(".panel")) == 9 * gallery.PER_GROUP
        assert len(page.shown(".bars")) == 4 and len(page.shown(".matrix table")) == 2
    finally:
        page.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_nothing_runs_off_a_narrow_screen(page):
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert page.script("document.documentElement.scrollWidth") <= 360
        assert page.script("innerWidth") == 360
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_screen_reader_finds_names_for_everything(page):
    assert page.script("document.documentElement.lang") == "en"
    unnamed = page.script(
        "[...document.querySelectorAll('img, svg, input, table, [tabindex]')].filter(e =>"
        " !(e.alt || e.labels?.[0]?.textContent || e.caption?.textContent || e.ariaLabel"
        " || e.querySelector?.('title')?.textContent)).map(e => e.outerHTML.slice(0, 80))"
    )
    assert unnamed == []
    levels = page.script("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    ids = page.script("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert page.script(
        "[...document.querySelectorAll('th')].every(th => th.scope || th.ariaHidden)"
    )
