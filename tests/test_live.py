"""What a run prints: plain lines, nothing when quiet, nothing read as markup."""

import io

import pytest
from rich.console import Console

from keras_lottery.experiments import live as module
from keras_lottery.experiments.live import Live

ODD = "[bold]transfer[/bold]:dataset=/x/[red]y[/red]_:smile:.npz"


def record(kind="ticket", seed=0, accuracy=0.987, replicate=0):
    return {
        "kind": kind,
        "replicate": replicate,
        "branch_seed": seed,
        "round": 3,
        "density": 0.2107,
        "early_stop": {"test_accuracy": accuracy, "step": 1200},
        "end": {"test_accuracy": 0.9812},
        "seconds": 12.345,
    }


# Piped ------------------------------------------------------------------------------------


def test_a_training_is_a_line_of_plain_text(capsys):
    with Live() as live:
        live.add(record())
        live.add(record("random_mask", seed=2))
    out = capsys.readouterr().out
    head, first, second = out.splitlines()
    assert " ".join(head.split()) == ("kind round density test at step at the end seconds")
    assert first.split() == ["ticket", "3", "21.07%", "98.70%", "1200", "98.12%", "12.3"]
    assert second.split()[:4] == ["random", "mask", "2", "3"]
    assert "\x1b" not in out and {len(head), len(first), len(second)} == {len(head)}


def test_replicates_are_told_apart_where_there_are_more(capsys):
    with Live(repeated=True) as live:
        live.add(record(replicate=1))
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["kind", "replicate", "round"]
    assert row.split()[:3] == ["ticket", "1", "3"]


@pytest.mark.parametrize("accuracy", [None, float("nan")])
def test_a_number_that_is_none_is_a_dash(capsys, accuracy):
    with Live() as live:
        live.add(record(accuracy=accuracy))
    assert capsys.readouterr().out.splitlines()[1].split()[3] == "-"


@pytest.mark.parametrize("say", [Live.say, lambda live, text: live.watch().say(text)])
def test_names_are_not_read_as_markup(capsys, say):
    with Live() as live:
        say(live, ODD)
        live.add(record(ODD))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == ODD
    assert ODD.replace("_", " ") in lines[2]


def test_a_long_line_is_not_broken(capsys):
    with Live() as live:
        live.say("x" * 500)
    assert capsys.readouterr().out == "x" * 500 + "\n"


def test_quiet_prints_nothing(capsys):
    with Live(quiet=True) as live:
        live.say("hello")
        live.add(record())
        watch = live.watch()
        watch.begin("search", 10)
        watch.advance(5, {"val_accuracy": 0.5})
        watch.row(record())
        watch.say("done")
        watch.end()
    assert capsys.readouterr() == ("", "")


# Progress ---------------------------------------------------------------------------------


def test_progress_is_a_line_now_and_then(capsys, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with Live() as live:
        watch = live.watch()
        watch.begin("search, replicate 0", 3000)
        for seconds in (5, 10, 10, 1):
            clock[0] += seconds
            watch.advance(500, {"val_accuracy": 0.5})
        watch.end()
    assert capsys.readouterr().out == (
        "  search, replicate 0: step 1,500 of 3,000, validation accuracy 50.00%\n"
    )


def test_a_finished_training_counts_as_a_sign_of_life(capsys, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with Live() as live:
        watch = live.watch()
        watch.begin("search", 100)
        clock[0] += 19
        watch.row(record())
        clock[0] += 19
        watch.advance(10, {})
        assert "search" not in capsys.readouterr().out
        clock[0] += 2
        watch.advance(10, {})
    assert capsys.readouterr().out == "  search: step 20 of 100, validation accuracy -\n"


def test_rounds_of_a_side_search_are_not_rows(capsys):
    with Live() as live:
        live.watch().row(record("continued_training/chain"))
        assert capsys.readouterr().out == ""
        live.watch().row(record("continued_training"))
        assert "continued training" in capsys.readouterr().out


def test_a_new_task_ends_the_one_before(monkeypatch):
    monkeypatch.setattr(module, "Console", lambda quiet: Console(
        file=io.StringIO(), force_terminal=True, width=200, quiet=quiet
    ))  # fmt: skip
    with Live() as live:
        one, other = live.watch(), live.watch()
        one.begin("first", 10)
        other.begin("second", 10)
        one.begin("third", 10)
        one.advance(4, {})
        shown = [(t.description, t.completed) for t in live._progress.tasks]
        assert shown == [("second", 0), ("third", 4)]
        one.end()
        one.end()
        assert [t.description for t in live._progress.tasks] == ["second"]
        live.say("a line beside the bars")
    text = live.console.file.getvalue()
    assert "a line beside the bars" in text and "third" in text and "\x1b" in text
