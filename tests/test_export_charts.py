"""How measurements are shown: the tables and the picture."""

import importlib.util
import io

import numpy as np
import pytest
from matplotlib import image
from rich.console import Console
from rich.text import Text

from keras_lottery.export import Measurement, Spread, charts


def row(name="a", median=1.0, is_dense=False, **changes):
    difference = None if is_dense else 0.0
    fields = {"density": 0.5, "parameters": 10, "flops": 20, "bytes": 30_000, "gzipped": 200}
    fields |= {"load_seconds": 0.004, "latency": {1: Spread(median, median / 2, median * 2)}}
    return Measurement(
        name, **{**fields, "difference": difference, "is_dense": is_dense, **changes}
    )


ROWS = [row(), row("a, dense", 2.0, is_dense=True), row("b", 4.0, bytes=None, load_seconds=None)]


# The table ------------------------------------------------------------------------------


def printed(rows, width, terminal=False):
    file = io.StringIO()
    charts.show(rows, Console(file=file, width=width, force_terminal=terminal, no_color=True))
    return Text.from_ansi(file.getvalue()).plain.splitlines()


def test_a_row_shows_each_number_in_its_unit():
    head, cells = printed([row(bytes=1_234_567, flops=2_345_678, difference=1.25e-7)], 200)
    assert " ".join(head.split()) == (
        "density parameters MFLOPs bytes gzipped load ms ms at batch 1 differs"
    )
    assert " ".join(cells.split()) == ("a 50.0% 10 2.35 1,234,567 200 4.0 1.00 (0.50-2.00) 1.2e-07")


def test_what_is_not_known_is_a_dash():
    unknown = {"density": None, "parameters": None, "flops": None, "bytes": None}
    unknown |= {"gzipped": None, "load_seconds": None, "difference": None}
    _, cells = printed([row(**unknown)], 200)
    assert cells.split() == ["a", *"-----", "-", "1.00", "(0.50-2.00)", "-"]


@pytest.mark.parametrize(
    ("median", "text"),
    [
        (0.014, "0.014 (0.007-0.028)"),
        (3.0, "3.00 (1.50-6.00)"),
        (30.0, "30.0 (15.0-60.0)"),
        (3000.0, "3,000.0 (1,500.0-6,000.0)"),
    ],
)
def test_short_times_have_more_digits(median, text):
    assert text in printed([row(median=median)], 200)[1]


def test_a_wide_terminal_and_a_pipe_get_one_table_with_nothing_cut():
    lines = printed(ROWS, 200, terminal=True)
    assert len(lines) == 4
    assert [line.rstrip() for line in lines] == [line.rstrip() for line in printed(ROWS, 20)]
    assert "\u2026" not in "".join(lines)


def test_a_narrow_terminal_gets_sizes_and_speeds_apart():
    lines = printed(ROWS, 80, terminal=True)
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines] == [
        "density",
        "a",
        "a,",
        "b",
        "load",
        "a",
        "a,",
        "b",
    ]
    assert "\u2026" not in "".join(lines)
    words = {word for line in lines for word in line.split()}
    assert words == {word for line in printed(ROWS, 200) for word in line.split()}


@pytest.mark.parametrize("name", ["net [old].keras", "[red]", ":smile:", "[/]", "x" * 150])
def test_a_name_is_shown_as_it_is(name):
    assert printed([row(name)], 200)[1].startswith(name)
    assert printed([row(name)], 80, terminal=True)[1].startswith(name)


# The picture ----------------------------------------------------------------------------


def pixels(rows):
    return image.imread(io.BytesIO(charts.bars(rows)))[..., :3]


def share(picture, colour):
    return np.isclose(picture, np.array(colour) / 255, atol=0.01).all(-1).mean()


BLUE, GREY = (31, 119, 180), (127, 127, 127)


def test_the_picture_is_a_png_with_a_bar_for_each_row():
    assert charts.bars(ROWS).startswith(b"\x89PNG")
    one, two = pixels([row()]), pixels([row(), row("a, dense", is_dense=True)])
    assert share(one, BLUE) > 0.1
    assert share(one, GREY) < 0.001  # but for the edges of letters
    assert share(two, BLUE) > 0.1 < share(two, GREY)
    assert two.shape[0] > one.shape[0]


def test_a_row_without_a_reference_is_no_dense_one():
    assert share(pixels([row(difference=None)]), BLUE) > 0.1


def test_bars_are_as_long_as_their_numbers():
    picture = pixels([row("a", bytes=10_000), row("b", bytes=40_000, is_dense=True)])
    sizes = picture[:, : picture.shape[1] // 2]
    blue, grey = (
        np.isclose(sizes, np.array(c) / 255, atol=0.01).all(-1).sum(1).max() for c in (BLUE, GREY)
    )
    assert grey / blue == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("name", ["$\\frac$", "a$_{$.keras", "two\nlines"])
def test_a_name_in_the_picture_is_not_read_as_a_formula(name):
    assert charts.bars([row(name)]).startswith(b"\x89PNG")


def test_a_missing_matplotlib_names_the_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "matplotlib" else find(n, *a)
    )
    with pytest.raises(ImportError, match=r"matplotlib.*keras-lottery\[plots\]"):
        charts.bars(ROWS)
