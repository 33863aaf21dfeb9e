"""The interactive page, driven as a reader drives it, in a real browser; every cell against Python."""

import json
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jconv
from jconv import textbook
from jconv.__main__ import main as command_line
from jconv.algorithms import ALGORITHMS
from jconv.algorithms.cook_toom import matrices
from jconv.algorithms.winograd import fixed, winograd
from jconv.algorithms.work import workspace
from jconv.choice.pick import choose
from jconv.lesson import compare
from jconv.lesson.command import write
from jconv.lesson.example import B, W, X, upstream
from jconv.lesson.kernels import NAMED
from jconv.lesson.page import build, embedded
from jconv.lesson.sources import BEHIND, NAMES, sources
from jconv.spec.tolerance import tolerance
from jconv.textbook.example import INPUT, SOBEL_X

ROOT = pathlib.Path(__file__).parent.parent
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)


# -- the browser and the page ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "page.html"
    assert command_line(["explain", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, page_file):
    page = Page(browser)
    page.screen(1200, 900)
    browser.get(page_file.as_uri())
    yield page
    assert browser.get_log("browser") == []


class Page:
    """What a reader can see and do."""

    def __init__(self, browser):
        self.browser = browser

    def run(self, script, *args):
        return self.browser.execute_script(script, *args)

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def every(self, selector, expression):
        """The value of a JavaScript expression of `e` for every element that matches."""
        script = f"return [...document.querySelectorAll(arguments[0])].map((e, i) => {expression})"
        return self.run(script, selector)

    def click(self, selector):
        # into the middle of the screen first: the navigation bar covers the top
        found = self.find(selector)
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", found)
        found.click()

    def keys(self, *names):
        from selenium.webdriver.common.keys import Keys

        self.browser.switch_to.active_element.send_keys(*(getattr(Keys, name, name) for name in names))

    def write(self, grid, i, j, text, channel=0):
        plane = f"[data-channel='{channel}'] " if self.every(f"#{grid} .plane", "1") else ""
        cell = f"#{grid} {plane}input[data-i='{i}'][data-j='{j}']"
        self.click(cell)
        self.run("arguments[0].select()", self.find(cell))
        self.keys(*text)

    def choose(self, selector, value):
        self.find(f"{selector} option[value='{value}']").click()

    def text(self, selector):
        return self.find(selector).text

    def cells(self, grid):
        return np.array(self.every(f"#{grid} tr", "[...e.cells].map(c => +c.dataset.value)"), float)

    def planes(self, grid):
        """The grids of a stack, one per channel: (channels, rows, columns)."""
        rows = "[...e.querySelectorAll('tr')].map(row => [...row.cells].map(c => +c.dataset.value))"
        return np.array(self.every(f"#{grid} .plane", rows), float)

    def shown(self, grid):
        """What is to be read in the cells, as text."""
        return self.every(f"#{grid} td", "e.textContent")

    def knob(self, section, name, value):
        shown = f"#{section} output[data-knob='{name}']"
        gap = value - int(self.text(shown))
        for _ in range(abs(gap)):
            self.click(f"#{section} button[data-step='{name}'][data-by='{1 if gap > 0 else -1}']")
        assert int(self.text(shown)) == value

    def knobs(self, section, **values):
        for name, value in values.items():
            self.knob(section, name, value)

    def screen(self, width, height, **more):
        metrics = dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [dict(name=name.replace("_", "-"), value=value) for name, value in more.items()]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dict(features=features))


# -- what Python says --------------------------------------------------------------------------------


def assert_equal(shown, expected, reduction=9):
    expected = np.asarray(expected, float)
    assert shown.shape == expected.shape
    bound = tolerance("float32", reduction) * max(1e-30, abs(expected).max())
    np.testing.assert_allclose(shown, expected, rtol=0, atol=bound)


def layer(x, w, knobs, b=None):
    """One image: (c, h, w), (o, c, r, s), (o,) → (o, p, q)."""
    return jconv.conv2d(jnp.float32(x), jnp.float32(w), None if b is None else jnp.float32(b), **knobs)


def assert_page_agrees(page, x, w, b=None, g=None, **knobs):
    """Outputs, columns and all gradients of the page against jconv, the textbook and jax.grad."""
    x, w = np.asarray(x, float), np.asarray(w, float)
    b = np.zeros(len(w)) if b is None else b
    y, pull = jax.vjp(lambda x, w, b: layer(x, w, knobs, b), jnp.float32(x), jnp.float32(w), jnp.float32(b))
    g = upstream(y.shape) if g is None else g
    dx, dw, db = pull(jnp.float32(g))
    columns = textbook.im2col_loops(x[None], w.shape[2:], **knobs)[0]
    for grid in ("unroll-y", "calc-y", "forward-y"):
        assert_equal(page.planes(grid), y, reduction=len(columns))
    matrix = page.cells("unroll-columns")
    assert_equal(matrix[: -len(w)], columns)
    assert_equal(matrix[-len(w) :], y.reshape(len(w), -1), reduction=len(columns))
    assert_equal(page.cells("unroll-w"), w.reshape(len(w), -1))
    assert_equal(page.planes("three-g"), g)
    assert_equal(page.planes("grad_kernel-y").reshape(w.shape), dw, reduction=y[0].size)
    assert_equal(page.planes("grad_input-y"), dx, reduction=len(columns))
    shown = page.find("#grad_bias [data-bias]").get_attribute("data-bias")
    assert_equal(np.array(shown.split(","), float), db, reduction=y[0].size)
    assert page.find("#check-nudge").get_attribute("data-good") == "true"


def simple(page):
    """The textbook's example: one channel in and out, no bias, all ones from above."""
    page.click("#simple")
    return INPUT[None].astype(float), SOBEL_X[None, None].astype(float)


# -- section 1 ---------------------------------------------------------------------------------------


def test_starts_from_two_channels_and_a_bias(page):
    assert_page_agrees(page, X, W, B)
    terms = zip(X[:, :3, :3].ravel(), W[0].ravel(), strict=True)
    products = " + ".join(f"({a}×{b})" for a, b in terms).replace("-", "−")
    assert (
        page.text("#unroll-sum") == f"y[0,0,0] = {products} + {B[0]} = {page.planes('unroll-y')[0, 0, 0]:g}"
    )
    assert page.find("#self-check").get_attribute("data-good") == "true"
    assert page.find("#check-jax").get_attribute("data-good") == "true"


def test_the_example_has_no_symmetric_accidents():
    x, w, g = (jnp.float32(array) for array in (X, W, upstream((2, 3, 3))))
    y, pull = jax.vjp(lambda x, w: layer(x, w, {}, B), x, w)
    for array in (y, *pull(g)):
        assert jnp.all(array != 0)
        for plane in array.reshape(-1, array.shape[-2] * array.shape[-1]):
            assert len(np.unique(plane)) >= 0.5 * plane.size
    assert np.count_nonzero(W) > 0.9 * W.size
    for kernel in W.reshape(-1, 3, 3):
        turned = [kernel.T, kernel[::-1], kernel[:, ::-1], kernel[::-1, ::-1]]
        assert not any((kernel == other).all() for other in turned)


def test_the_textbook_example_is_a_button_away(page):
    x, w = simple(page)
    assert_page_agrees(page, x, w, g=np.ones((1, 3, 3)))
    products = "(1×−1) + (2×0) + (0×1) + (0×−2) + (1×0) + (2×2) + (2×−1) + (0×0) + (1×1)"
    assert page.text("#unroll-sum") == f"y[0,0,0] = {products} = 2"
    page.click("#reset")
    assert_page_agrees(page, X, W, B)


def test_answers_are_hidden_until_stepped_to(page):
    def hidden(texts):
        return [position for position, text in enumerate(texts) if text == ""]

    for index in (0, 4, 8):
        page.click(f"#unroll-y [data-channel='0'] [data-i='{index // 3}'][data-j='{index % 3}']")
        later = list(range(index + 1, 9))
        assert hidden(page.shown("unroll-y")) == later + [9 + position for position in later]
        last = page.every("#unroll-columns tr:last-child td", "e.textContent")
        assert hidden(last) == later
        labels = page.every("#unroll-y .plane:first-child button", "e.ariaLabel")
        assert [label.endswith("not computed yet") for label in labels] == [n in later for n in range(9)]


def test_the_kernels_are_drawn_as_rows_beside_the_columns_they_multiply(page):
    assert page.cells("unroll-w").shape == (2, 18)
    assert "as rows 2×18" in page.text("#unroll-w-size")
    rows = [page.find(f"#{grid}").rect for grid in ("unroll-w", "unroll-columns")]
    kernel_top, foot = rows[0]["y"], page.find("#unroll-columns td.foot").rect["y"]
    assert rows[0]["x"] + rows[0]["width"] <= rows[1]["x"] + 1
    assert abs(kernel_top - foot) < 16  # the first kernel stands in the line of what it makes


@pytest.mark.parametrize(
    ("section", "knobs"),
    [
        ("unroll", dict(stride=2, padding=1, dilation=1)),
        ("calculator", dict(stride=1, padding=2, dilation=2)),
        ("three", dict(stride=3, padding=4, dilation=2)),  # padding beyond kernel − 1, unused rows at the end
    ],
)
def test_knobs(page, section, knobs):
    page.knobs(section, **knobs)
    assert_page_agrees(page, X, W, B, **knobs)


def test_stepping_by_key_pointer_and_slider(page):
    y = np.asarray(layer(X, W, {}, B))[0].ravel()

    def assert_at(index):
        assert page.text("#position-text") == f"{index + 1} of 9"
        assert float(page.find("#unroll-sum .result").get_attribute("data-value")) == y[index]
        lit = page.every("#unroll-x td", "e.classList.contains('lit')")
        p, q = divmod(index, 3)
        patch = [5 * (p + r) + q + s for r in range(3) for s in range(3)]
        assert np.flatnonzero(lit).tolist() == [25 * c + at for c in range(2) for at in patch]

    page.run("document.getElementById('unroll').focus()")
    for key, index in (("ARROW_RIGHT", 1), ("END", 8), ("ARROW_RIGHT", 8), ("ARROW_LEFT", 7), ("HOME", 0)):
        page.keys(key)
        assert_at(index)
    page.click("#next")
    assert_at(1)
    page.click("#unroll-y button[data-i='2'][data-j='1']")
    assert_at(7)
    page.run("document.getElementById('position').focus()")
    page.keys("ARROW_LEFT")
    assert_at(6)


def test_playing_goes_to_the_end_and_stops(page):
    page.click("#unroll-y button[data-i='2'][data-j='0']")
    page.run("document.getElementById('unroll').focus()")
    page.keys("SPACE")
    assert page.find("#play").get_attribute("aria-pressed") == "true"
    page.browser.set_script_timeout(30)
    page.browser.execute_async_script(
        """const [done] = arguments;
        const look = () => document.querySelector('#play[aria-pressed=true]') ? setTimeout(look, 50) : done();
        look();"""
    )
    assert page.text("#position-text") == "9 of 9"


# -- section 2 ---------------------------------------------------------------------------------------


def test_editing_cells(page):
    x, w, b = X.astype(float), W.astype(float), B.astype(float)
    for c, i, j, written in ((0, 4, 4, "-2.5"), (1, 0, 1, "7")):
        page.write("calc-x", i, j, written, channel=c)
        x[c, i, j] = float(written)
    page.write("calc-w", 1, 1, "0,25", channel=3)  # to output 1 from input 1
    w[1, 1, 1, 1] = 0.25
    page.click("[data-nudge='flip']")
    page.click("[data-nudge='-1']")
    w[1, 1, 1, 1] = -1.25
    page.write("calc-b", 0, 1, "1/2")
    b[1] = 0.5
    assert_page_agrees(page, x, w, b)
    assert page.find("#named").get_attribute("value") == "own"


def test_fractions_stay_fractions(page):
    page.write("calc-x", 0, 0, "1/9")
    page.keys("TAB")
    cell = page.find("#calc-x input")
    assert cell.get_attribute("value") == "1/9"
    assert float(page.planes("calc-x")[0, 0, 0]) == pytest.approx(1 / 9)
    page.choose("#named", "box-blur")
    assert set(page.every("#calc-w .plane:first-child input", "e.value")) == {"1/9"}
    page.choose("#named", "gaussian")
    assert page.every("#calc-w .plane:first-child input", "e.value")[:2] == ["1/16", "0.125"]
    for nonsense in ("1/", "/9", "1/0", "1/2/3"):
        page.write("calc-x", 0, 0, nonsense)
        assert page.find("#calc-x input").get_attribute("aria-invalid") is not None, nonsense


def test_nonsense_in_a_cell_changes_nothing(page):
    page.write("calc-x", 0, 0, "x1")
    assert page.find("#calc-x input").get_attribute("aria-invalid") is not None
    assert_page_agrees(page, X, W, B)
    page.keys("TAB")
    assert page.find("#calc-x input").get_attribute("value") == "1"


def test_arrows_move_between_cells(page):
    page.click("#calc-w input")
    page.keys("ARROW_DOWN", "ARROW_RIGHT")
    assert page.run("return document.activeElement.ariaLabel") == "kernel 0 to 0 row 2 column 2"


def test_named_kernels(page):
    for name, kernel in NAMED.items():
        page.choose("#named", name)
        w = np.stack([np.stack([kernel] * 2), W[1]])
        assert_equal(page.planes("calc-w").reshape(w.shape), w)
        assert_equal(page.planes("calc-y"), layer(X, w, {}, B), reduction=18)
        assert page.find("#named").get_attribute("value") == name


def test_other_sizes_and_the_size_formula(page):
    page.click("[aria-label='more input columns']")
    page.click("[aria-label='less kernel rows']")
    page.knobs("calculator", stride=2, padding=1)
    x, w = np.pad(X, ((0, 0), (0, 0), (0, 1))), W[:, :, :2]
    assert_page_agrees(page, x, w, B, stride=2, padding=1)
    rows, columns = layer(x, w, dict(stride=2, padding=1)).shape[1:]
    assert [int(page.text(f"[data-size='{axis}']")) for axis in ("rows", "columns")] == [rows, columns]
    assert "(6 + 2·1 − 1·(3 − 1) − 1) / 2" in page.text("#size-formula")


def test_other_numbers_of_channels(page):
    for button in ("more channels in", "less channels out"):
        page.click(f"[aria-label='{button}']")
    x, w = page.planes("calc-x"), page.planes("calc-w").reshape(1, 3, 3, 3)
    assert_equal(x[:2], X)
    assert_equal(w[:, :2], W[:1])
    assert_page_agrees(page, x, w, B[:1])
    page.click("[aria-label='more channels out']")
    assert_equal(page.planes("calc-w").reshape(2, 3, 3, 3)[:1], w)


def test_the_flip_is_what_makes_it_a_convolution(page):
    signal = pytest.importorskip("scipy.signal")
    kernel = W[0, 0].astype(float)
    for lit_pixel in (True, False):
        x = np.zeros((5, 5)) if lit_pixel else X[0].astype(float)
        x[2, 2] += lit_pixel
        assert_equal(page.cells("flip-y"), signal.correlate2d(x, kernel, "same"))
        page.click("#flip")
        assert_equal(page.cells("flip-w"), kernel[::-1, ::-1])
        assert_equal(page.cells("flip-y"), signal.convolve2d(x, kernel, "same"))
        if lit_pixel:
            assert page.text("#flip-note").startswith("One lit pixel comes out as the kernel itself")
        page.click("#flip")
        page.click("#flip-impulse")
    page.choose("#named", "laplacian")
    assert "its own flip" in page.text("#flip-note")
    assert_equal(
        page.planes("calc-y")[1], layer(X, W, {}, B)[1], reduction=18
    )  # the switch is the panel's own


def test_a_kernel_that_does_not_fit_is_said_and_survived(page):
    page.knob("unroll", "dilation", 3)
    assert "7×7" in page.text("#unroll [data-misfit]")
    assert not page.find("#unroll-columns").is_displayed()
    with pytest.raises(ValueError, match="output would be empty"):
        layer(X, W, dict(dilation=3))
    page.knob("unroll", "padding", 1)
    assert_page_agrees(page, X, W, B, padding=1, dilation=3)


# -- section 3 ---------------------------------------------------------------------------------------


def test_upstream_gradient(page):
    page.knobs("three", stride=2, padding=1)
    g = upstream((2, 3, 3)).astype(float)
    for o, i, j, written in ((0, 0, 0, "-3"), (1, 2, 1, "0.5"), (0, 1, 2, "4")):
        page.write("three-g", i, j, written, channel=o)
        g[o, i, j] = float(written)
    assert_page_agrees(page, X, W, B, g, stride=2, padding=1)
    loss = np.vdot(g, layer(X, W, dict(stride=2, padding=1), B))
    assert float(page.find("#loss").get_attribute("data-value")) == pytest.approx(float(loss))
    assert page.find("#check-jax").get_attribute("data-good") is None  # jax was not asked about this one
    for o, i, j in ((0, 0, 0), (1, 2, 1), (0, 1, 2)):
        page.write("three-g", i, j, str(upstream((2, 3, 3))[o, i, j]), channel=o)
    assert page.find("#check-jax").get_attribute("data-good") == "true"


def test_ones_and_a_single_one_from_above(page):
    page.click("#g-ones")
    page.knob("three", "padding", 1)
    assert_page_agrees(page, X, W, B, np.ones((2, 5, 5)), padding=1)
    page.click("#g-one")
    only = np.zeros((2, 5, 5))
    only[0, 0, 0] = 1
    assert_page_agrees(page, X, W, B, only, padding=1)


@pytest.mark.parametrize(("role", "plane"), [("grad_kernel", 2), ("grad_input", 1)])
def test_sum_of_a_picked_gradient_cell(page, role, plane):
    page.click(f"#{role}-y [data-channel='{plane}'] button[data-i='2'][data-j='1']")
    shown = page.text(f"#{role}-sum")
    terms = re.findall(r"\((.+?)×(.+?)\)", shown.replace("−", "-"))
    assert sum(float(a) * float(b) for a, b in terms) == page.planes(f"{role}-y")[plane, 2, 1]
    assert {"grad_kernel": "∂w[1,0,2,1]", "grad_input": "∂x[1,2,1]"}[role] in shown


# -- section 4 ---------------------------------------------------------------------------------------


def layers_to_try():
    several = np.random.default_rng(3).permutation(list(compare.layers()["answers"]))[:3]
    return [*(",".join(values) for values in compare.PRESETS.values()), *several]


def test_answers_for_layers(page):
    for key in layers_to_try():
        values = key.split(",")
        fields = dict(zip(compare.FIELDS, values, strict=True))
        page.choose("#field-groups", "1")
        for name, value in fields.items():
            if page.find(f"#field-{name}").get_attribute("value") != value:
                page.choose(f"#field-{name}", value)
        assert_layer_agrees(page, compare.spec_of(*values))


def assert_layer_agrees(page, spec):
    facts = dict(page.every("[data-fact]", "[e.dataset.fact, +e.dataset.value]"))
    assert facts.pop("out") == spec.out_spatial[0]
    assert facts.pop("padding") == spec.padding[0][0]
    assert facts == {name: getattr(spec, name) for name in ("parameters", "macs", "flops", "bytes")}
    choice = choose(spec, "forward", "cpu")
    assert page.text("#chosen") == choice.algorithm.name
    assert page.text("#verdict").endswith(choice.reason.removeprefix(f"{choice.algorithm.name}: "))
    for name, algorithm in ALGORITHMS.items():
        if name not in choice.seconds:
            reason = choice.rejected[name]
            assert page.every(f"[data-algorithm='{name}']", "e.textContent") == [f"{name}: {reason}"]
            continue
        count, space, _ = page.every(f"[data-algorithm='{name}'] td", "+e.dataset.value")
        assert count == compare.multiplications(algorithm, spec)
        assert space == workspace(algorithm, "forward", spec)


def test_every_answer_of_the_page_is_reachable_and_complete():
    layers = compare.layers()
    for key, answer in layers["answers"].items():
        assert isinstance(answer["rows"][answer["chosen"]], list), key
        assert layers["texts"][answer["reason"]]


def test_winograds_multiplications_in_the_table():
    spec = compare.spec_of("1", "56", "64", "64", "3", "1", "1")  # 56 is even: no tile is cut
    assert 36 * compare.multiplications(winograd(fixed(2)), spec) == 16 * spec.macs
    assert compare.multiplications(ALGORITHMS["im2col"], spec) == spec.macs


def test_winograd_of_the_example(page):
    f = matrices(2, 3)
    AT, G, BT = (np.array(matrix, float) for matrix in (f.A, f.G, f.B))
    tile, kernel = X[0, :4, :4].astype(float), W[0, 0].astype(float)
    shown = {"bt": BT, "d": tile, "b": BT.T, "v": BT @ tile @ BT.T, "g": G, "k": kernel, "gt": G.T,
             "u": G @ kernel @ G.T, "at-matrix": AT, "a": AT.T}  # fmt: skip
    for name, expected in shown.items():
        assert_equal(page.cells(f"wino-{name}"), expected)
    assert_equal(page.cells("wino-m"), shown["v"] * shown["u"])
    assert_equal(page.cells("wino-y"), layer(tile[None], kernel[None, None], {})[0])
    assert page.cells("wino-m").size == 16 == int(page.text("#winograd-count"))
    assert int(page.text("#direct-count")) == 4 * kernel.size
    page.choose("#named", "box-blur")
    assert_equal(page.cells("wino-y"), layer(tile[None], np.float32(NAMED["box-blur"])[None, None], {})[0])
    assert page.find("#wino-note").get_attribute("data-good") == "true"


def test_winograds_products_are_counted_as_they_light_up(page):
    def seen(grid):
        return sum(text != "" for text in page.shown(grid))

    assert (seen("wino-m"), seen("wino-y")) == (0, 0)
    for count in (1, 2, 3):
        page.click("#wino-next")
        assert page.text("#wino-done") == f"{count} of 16 products"
        assert seen("wino-m") == count
        for grid in ("wino-v", "wino-u", "wino-m"):
            lit = page.every(f"#{grid} td", "e.classList.contains('lit')")
            assert np.flatnonzero(lit).tolist() == [count - 1]
        v, u, m = (page.cells(f"wino-{name}").ravel()[count - 1] for name in "vum")
        assert page.text("#wino-product").replace("−", "-") == f"{v:g} × {u:g} = {m:g}"
    page.click("#wino-prev")
    assert page.text("#wino-done") == "2 of 16 products"
    page.click("#wino-all")
    assert (seen("wino-m"), seen("wino-y")) == (16, 4)
    assert "the same four numbers" in page.text("#wino-note")


@pytest.mark.parametrize("groups", [2, 8])
def test_drawn_connections_are_those_of_a_grouped_convolution(page, groups):
    page.choose("#groups", groups)
    shown = {tuple(wire) for wire in page.every(".wire", "e.dataset.wire.split(',').map(Number)")}
    w = jnp.ones((8, 8 // groups, 1, 1))
    one_at_a_time = jnp.eye(8).reshape(8, 8, 1, 1)  # image c has channel c only
    fed = jconv.conv2d(one_at_a_time, w, groups=groups).reshape(8, 8)
    assert shown == {(int(c), int(o)) for c, o in np.argwhere(fed)}


def test_picking_an_output_channel_by_key(page):
    page.click(".node.out.lit")
    page.keys("ARROW_DOWN")
    page.keys("ARROW_DOWN")
    assert page.text("#group-note").startswith("Output 2 is fed by inputs 0, 1, 2, 3.")


def test_memory_order(page):
    places = np.array([[c, h, w] for c in range(3) for h in range(3) for w in range(4)]).reshape(3, 3, 4, 3)
    for order, axes in (("nchw", (0, 1, 2, 3)), ("nhwc", (1, 2, 0, 3))):
        shown = page.every(f"#{order} .slot", "e.dataset.what.split(',').map(Number)")
        assert shown == places.transpose(axes).reshape(-1, 3).tolist()


# -- the page as a whole -----------------------------------------------------------------------------


def test_on_a_phone_the_player_and_what_it_changes_are_on_one_screen(page):
    page.screen(390, 844)
    page.run("document.querySelector('.lab').scrollIntoView({block: 'start', behavior: 'instant'})")
    page.find("#next").click()
    top = page.run("return document.querySelector('.top').getBoundingClientRect().bottom")
    for what in ("#next", "#unroll-x td.lit", "#unroll-w td.lit", "#unroll-columns td.lit",
                 "#unroll-columns td.foot.lit", "#unroll-y td.lit", "#unroll-sum .result"):  # fmt: skip
        for box in page.every(what, "[e.getBoundingClientRect().top, e.getBoundingClientRect().bottom]"):
            assert top - 1 <= box[0] < box[1] <= 844, what


@pytest.mark.parametrize("width", [320, 390])
def test_nothing_sticks_out_of_a_phone(page, width):
    page.screen(width, 800)
    page.knobs("unroll", padding=4)  # the widest matrix
    assert page.run("return document.documentElement.scrollWidth") <= width
    page.run("scrollTo(999, 0)")
    assert page.run("return scrollX") == 0


def test_light_and_dark(page):
    colour = "return getComputedStyle(document.body).backgroundColor"
    light = page.run(colour)
    page.screen(1200, 900, prefers_color_scheme="dark")
    dark = page.run(colour)
    assert light != dark
    page.click("#theme")
    assert page.run(colour) == light
    page.click("#theme")
    assert page.run(colour) == dark
    page.run("localStorage.clear()")


def test_every_control_has_a_name(page):
    name = "e.ariaLabel || (e.labels?.[0] ?? e).textContent.trim()"
    names = page.every("button, input, select, [role=button]", f"[e.outerHTML, {name}]")
    assert len(names) > 100
    assert [html for html, name in names if not name] == []


def test_reduced_motion_flies_nothing(page):
    page.screen(1200, 900, prefers_reduced_motion="reduce")
    page.click("#next")
    assert page.run("return document.querySelectorAll('.ghost').length") == 0


def test_loads_nothing(page, page_file):
    loaded = page.run("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [url for url in loaded if not url.startswith("data:")] == []
    written = re.sub(
        r"""<a href="https://arxiv.org/abs/[\d.]+">""", "", page_file.read_text()
    )  # to be clicked
    urls = re.findall(r"""(?:src|href)=["']([^"']+)|url\(([^)]+)\)|@import""", written)
    assert all((a or b).startswith(("#", "data:")) for a, b in urls)


def test_every_panel_leads_to_the_files_behind_it(page):
    links = page.every(
        "[data-behind] a", "[e.closest('[data-behind]').dataset.behind, e.textContent, e.hash]"
    )
    behind = {panel: [] for panel in BEHIND}
    for panel, name, target in links:
        behind[panel].append(name)
        text = page.run("return document.querySelector(arguments[0]).textContent", target)
        beside = ROOT / name if name.startswith("examples/") else ROOT / "jconv" / name
        assert text == name + beside.read_text(encoding="utf-8")
    assert behind == sources()["behind"]
    page.click("[data-behind='three'] a")
    assert page.find("#file-textbook-backward-py pre").is_displayed()


def test_the_names_of_the_tour_are_its_files():
    assert sorted(NAMES.values()) == sorted(path.stem for path in (ROOT / "examples" / "tour").glob("*.py"))


def test_where_there_is_no_tour_the_page_only_names_it(monkeypatch, tmp_path):
    monkeypatch.setattr("jconv.lesson.sources.TOUR", tmp_path)
    texts = sources()["files"]
    assert {name for name, text in texts.items() if text is None} == {
        n for n in texts if n.startswith("examples/")
    }


def test_a_page_of_the_readers_own(browser, tmp_path):
    out = tmp_path / "own.html"
    options = ["--stride", "2", "--padding", "1", "--kernel", "laplacian"]
    written = "1 2.5 -3; 0 1 2; 4 4 4; 1 0 1"
    assert command_line(["explain", *options, "--input", written, "--out", str(out)]) == 0
    browser.get(out.as_uri())
    x = [[1, 2.5, -3], [0, 1, 2], [4, 4, 4], [1, 0, 1]]
    assert_page_agrees(Page(browser), [x], [[NAMED["laplacian"]]], stride=2, padding=1)
    assert browser.get_log("browser") == []


# -- without a browser -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--stride", "0"], "whole number from 1 to 4"),
        (["--padding", "-1"], "whole number from 0 to 4"),
        (["--input", "1 2; 3"], "as many numbers"),
        (["--input", "1 two"], "could not convert"),
        (["--input", "1/0 2"], "Fraction(1, 0); write rows like"),
        (["--input", "nan 1"], "between -1e6 and 1e6"),
        (["--input", ";".join(["1"] * 13)], "at most 12×12"),
        (["--kernel", "sobelx"], "not a known kernel"),
        (["--input", "1 2; 3 4"], "output would be empty"),
        (["--input", ""], "'' has no numbers; write rows like"),
        (["--kernel", " ; "], "' ; ' has no numbers; write rows like"),
    ],
)
def test_wrong_arguments_leave_no_page(capsys, tmp_path, options, says):
    try:
        status = command_line(["explain", *options, "--out", str(tmp_path / "page.html")])
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_what_was_there(capsys, tmp_path, monkeypatch):
    out = tmp_path / "page.html"
    out.write_text("before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    assert command_line(["explain", "--out", str(out)]) == 2
    assert "No space left" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page.html", "before")]


def test_a_link_stays_a_link_and_what_it_points_to_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    page, link = tmp_path / "there" / "page.html", tmp_path / "link.html"
    link.symlink_to("there/page.html")
    write(link, "first")  # nothing is there yet
    page.chmod(0o600)
    write(link, "second")
    assert link.is_symlink()
    assert not page.is_symlink()
    assert page.read_text() == "second"
    assert page.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link.html", "page.html", "there"]


@pytest.mark.skipif(not pathlib.Path("/dev/null").exists(), reason="there is no /dev/null")
def test_a_device_is_written_to_and_not_replaced():
    write(pathlib.Path("/dev/null"), "gone")
    assert pathlib.Path("/dev/null").is_char_device()


def test_a_link_to_nowhere_is_refused_before_the_page_is_built(capsys, tmp_path):
    (tmp_path / "link.html").symlink_to("none/page.html")
    with pytest.raises(SystemExit):
        command_line(["explain", "--out", str(tmp_path / "link.html")])
    assert "must be a file in a folder that is there, and" in capsys.readouterr().err


def test_explain_says_what_it_is_doing(capsys, tmp_path):
    assert command_line(["explain", "--out", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().err == "asking jconv about layers …\n"
    asked = []
    layers = compare.layers(asked.append)
    assert len(asked) == len(layers["answers"]) == len(compare.questions())


def test_a_place_that_is_no_file_is_refused_before_the_page_is_built(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {
        "": "'' must be a file; write 'page.html'",
        str(tmp_path): f"'{tmp_path}' must be a file; write '{tmp_path / 'page.html'}'",
        "none/page.html": "'none/page.html' must be a file in a folder that is there, and 'none' is not",
    }
    for place, says in places.items():
        with pytest.raises(SystemExit) as stopped:
            command_line(["explain", "--out", place])
        assert stopped.value.code == 2
        assert says in capsys.readouterr().err


def test_a_failed_write_names_the_page_and_not_the_file_beside_it(capsys, tmp_path, monkeypatch):
    out = tmp_path / "page.html"

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path / ".page.html.abc"))

    monkeypatch.setattr("jconv.lesson.command.build", lambda *_, **__: "page")
    monkeypatch.setattr("tempfile.mkstemp", refused)
    assert command_line(["explain", "--out", str(out)]) == 2
    assert capsys.readouterr().err.endswith(f"error: cannot write {out}: Permission denied\n")


def test_data_cannot_end_its_script():
    data = {"a": "</script><!--"}
    assert "<" not in embedded(data)
    assert json.loads(embedded(data)) == data


def test_page_is_the_same_every_time(page_file):
    assert page_file.read_text() == build()
