"""The printed table: one line a round."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from keras_lottery.display import RoundTable
from keras_lottery.experiments.live import Live


def printed(*rows, **options):
    file = io.StringIO()
    table = RoundTable(console=Console(file=file, width=40), **options)
    for row in rows:
        table.add(row)
    return file.getvalue().splitlines()


def test_headings_once_and_then_a_line_a_round_right_aligned():
    assert printed({"round": "0", "density": "100.00%"}, {"round": "1", "density": "80.00%"}) == [
        "  round  density",
        "      0  100.00%",
        "      1   80.00%",
    ]


def test_the_columns_are_those_of_the_first_row():
    lines = printed({"round": "0", "loss": "1"}, {"round": "1", "extra": "5"})
    assert lines == ["  round     loss", "      0        1", "      1        -"]


def test_a_row_wider_than_the_console_stays_one_line():
    lines = printed({f"a long heading {i}": "x" * 30 for i in range(9)})
    assert len(lines) == 2


def test_verbose_0_prints_nothing(capsys):
    RoundTable(0).add({"round": "0"})
    assert capsys.readouterr().out == ""
    assert printed({"round": "0"}, verbose=0) == []


def test_goes_to_the_standard_output_without_control_characters(capsys):
    RoundTable().add({"round": "0", "density": "100.00%"})
    out = capsys.readouterr().out
    assert out.splitlines() == ["  round  density", "      0  100.00%"]
    assert out.replace("\n", "").isprintable()


@given(
    st.dictionaries(
        st.text("ab[]/:_ 1", min_size=1, max_size=8), st.text("ab[]/:_ 1", max_size=8), min_size=1
    )
)
def test_headings_and_texts_are_printed_as_they_are(row):
    heads, values = printed(row)
    widths = [max(len(name), len(text), 7) for name, text in row.items()]
    assert heads == "  ".join(n.rjust(w) for n, w in zip(row, widths, strict=True))
    assert values == "  ".join(t.rjust(w) for t, w in zip(row.values(), widths, strict=True))


def test_metric_names_in_brackets_are_printed_as_they_are():
    assert printed({"acc[top]": "[red]", "a:cat:b": "x"})[0].split() == ["acc[top]", "a:cat:b"]


def test_live_says_paths_as_they_are(capsys):
    with Live() as live:
        live.say("report   runs/data[old]-lenet-1/report.html")
        live.say("report   runs/a:cat:b[/red]/report.html")
    assert capsys.readouterr().out.splitlines() == [
        "report   runs/data[old]-lenet-1/report.html",
        "report   runs/a:cat:b[/red]/report.html",
    ]
