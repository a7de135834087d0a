"""Runs from the command line: find, branch, status, report, presets, and what they print."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import sys

import numpy as np
import pytest
from commands import SCRIPT, TINY, call, files, make_place, python

from keras_lottery import Ticket
from keras_lottery.experiments import runner
from keras_lottery.experiments.config import Config
from keras_lottery.experiments.plan import Branch, Plan, control_names
from keras_lottery.experiments.presets import PRESETS
from keras_lottery.experiments.searching import Replicate
from keras_lottery.experiments.store import Store


def refused(result, *words):
    """Exit code 2 and one line on stderr that holds the words."""
    code, _, err = result
    assert code == 2
    assert len(err.splitlines()) == 1, err
    for word in words:
        assert str(word) in err


def rows(out):
    """The table's lines, split."""
    return [line.split() for line in out.splitlines() if line.count("%") == 3]


# find ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a data set whose name has brackets, as browsers' second downloads do."""
    folder = tmp_path_factory.mktemp("place")
    make_place(folder, "tiny [old].npz")
    return folder


@pytest.fixture(scope="module")
def finished(place):
    flags = ["--dataset=tiny [old].npz", "--rounds=3", "--controls=reinitialize"]
    return python(SCRIPT, "find", *flags, *TINY, cwd=place, COLUMNS="80")


def run_folder(place):
    (folder,) = (place / "runs").glob("tiny*")
    return folder


def test_the_script_prints_a_line_a_training_and_ends_well(finished):
    assert finished.returncode == 0, finished.stderr
    rows = [line.split()[:3] for line in finished.stdout.splitlines() if line.count("%") == 3]
    # 18 weights; the output layer, the only one, loses half of --prune_fraction a round:
    # round(4.5) = 4, then round(3.5) = 4.
    densities = {"0": "100.00%", "1": "77.78%", "2": "55.56%"}
    kinds = [("ticket", "012"), ("reinitialize", "12")]
    assert rows == [[kind, r, densities[r]] for kind, rounds in kinds for r in rounds]


def test_what_the_script_prints_can_be_read_in_a_file(finished):
    assert finished.stdout.replace("\n", "").isprintable()
    assert "\u2026" not in finished.stdout  # nothing is cut
    lines = finished.stdout.splitlines()
    assert any(re.match("ticket: within .* of the dense accuracy down to .*;", x) for x in lines)


def test_the_script_says_nothing_on_stderr(finished):
    assert finished.stderr == ""


def test_the_script_names_the_files_it_wrote_and_they_are_there(finished, place):
    folder = run_folder(place)
    assert re.fullmatch(r"tiny--old--command_nets-small-[0-9a-f]{8}", folder.name)
    report = os.path.join("runs", folder.name, "report.html")
    assert f"report   {report}\n" in finished.stdout
    for name in ("report.html", "accuracy.png", "numbers.csv"):
        assert (folder / name).stat().st_size > 100
    tickets = sorted(folder.glob("replicate_*/ticket/round_*/ticket.safetensors"))
    assert f"runs/{folder.name}/replicate_*/ticket/round_*/ticket.safetensors" in finished.stdout
    assert [Ticket.load(p).metadata["round"] for p in tickets] == [0, 1, 2]
    plan = json.loads((folder / "config.json").read_text())["plan"]
    assert Plan.from_dict(plan) == Plan(3, 1, (Branch("reinitialize"),))


def tiny_run(cli, *flags):
    return cli("find", "--dataset=tiny [old].npz", *TINY, *flags)


def test_the_same_command_again_trains_nothing_and_says_so(
    finished, cli, place, monkeypatch, tmp_path
):
    monkeypatch.chdir(place)
    before = {p: data for p, data in files(place).items() if "replicate_" in p}
    code, out, _ = tiny_run(cli, "--rounds=3", "--controls=reinitialize")
    assert code == 0
    assert "nothing to do: all 5 trainings are done\n" in out
    assert "\n".join(out.splitlines()[3:]) in finished.stdout
    assert before == {p: data for p, data in files(place).items() if "replicate_" in p}


def test_a_workdir_of_other_settings_is_refused_before_anything_is_said_of_it(
    finished, cli, place, monkeypatch
):
    monkeypatch.chdir(place)
    before = files(place)
    workdir = f"--workdir=runs/{run_folder(place).name}"
    code, out, err = tiny_run(cli, "--rounds=3", "--seed=1", workdir)
    assert code == 2
    assert "other settings: {'seed': 0}" in err
    assert "--workdir" in err
    assert "report" not in out
    assert before == files(place)


def test_more_rounds_go_on_where_the_run_was(cli, tmp_path):
    make_place(tmp_path)
    flags = ["--dataset=tiny.npz", *TINY]
    assert cli("find", *flags, "--rounds=1")[0] == 0
    code, out, _ = cli("find", *flags, "--rounds=2", "--tensorboard")
    assert code == 0
    rows = [line.split()[:2] for line in out.splitlines() if line.count("%") == 3]
    assert rows == [["ticket", "1"]]
    events = list((tmp_path / "runs").glob("*/tensorboard/*/ticket/round_*/events.*"))
    assert len(events) == 2
    assert re.search("^tensorboard  runs/", out, re.MULTILINE)


def test_ctrl_c_ends_with_the_shells_exit_code_and_keeps_what_is_done(cli, monkeypatch, tmp_path):
    make_place(tmp_path)
    train = Replicate.train

    def interrupted(self, place, *args, **options):
        if place.folder.name == "round_01":
            raise KeyboardInterrupt
        train(self, place, *args, **options)

    flags = ["find", "--dataset=tiny.npz", *TINY, "--rounds=2", "--workdir=run"]
    with monkeypatch.context() as patch:
        patch.setattr(Replicate, "train", interrupted)
        code, out, err = cli(*flags)
    assert code == 130
    assert "Traceback" not in err
    assert "Interrupted. The same command goes on from here." in out
    assert (tmp_path / "run" / "report.html").exists()
    assert [r["round"] for r in Store("run").records()] == [0]
    assert cli(*flags)[0] == 0
    assert [r["round"] for r in Store("run").records()] == [0, 1]


def test_a_run_that_is_nan_from_the_start_fails_in_plain_words(cli, tmp_path):
    make_place(tmp_path)
    flags = ["--dataset=tiny.npz", *TINY, "--rounds=2", "--model=command_nets:overflowing"]
    code, out, err = cli("find", *flags, "--verbosity=-1")
    assert (code, out) == (2, "")
    assert "No training has finished. round 0: NaN or Inf in the weights" in err


def test_a_quiet_run_prints_nothing(cli, tmp_path):
    make_place(tmp_path)
    flags = ["--dataset=tiny.npz", *TINY, "--rounds=1", "--workdir=run"]
    code, out, _ = cli("find", *flags, "--verbosity=-1")
    assert (code, out) == (0, "")
    assert (tmp_path / "run" / "report.html").exists()
    assert cli("find", *flags)[1] != ""


# branch --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with two runs of two rounds under `runs/`; the newer one, `b`, has replicates."""
    folder = tmp_path_factory.mktemp("made")
    make_place(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        flags = ["find", "--dataset=tiny.npz", *TINY, "--rounds=2", "--verbosity=-1"]
        assert call(*flags, "--workdir=runs/a", "--seed=3") == 0
        assert call(*flags, "--workdir=runs/b", "--replicates=2") == 0
    return folder


@pytest.fixture
def here(made, tmp_path):
    """A copy of these runs of one's own; `cli` works in it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, copy_function=shutil.copy2)
    return tmp_path


def test_a_branch_trains_controls_of_the_newest_run_at_the_asked_rounds(cli, here):
    before = files(here / "runs" / "a"), files(here / "runs" / "b" / "replicate_0" / "ticket")
    flags = ["branch", "--controls=reinitialize,dense", "--rounds=1", "--control_seeds=2"]
    code, out, _ = cli(*flags)
    assert code == 0
    assert out.splitlines()[0] == f"run  {os.path.join('runs', 'b')}"
    names = [["reinitialize"], ["reinitialize", "1"], ["dense"], ["dense", "1"]]
    numbers = [["1", "77.78%"]] * 2 + [["0", "100.00%"]] * 2
    expected = [[*n, r, *m] for r in "01" for n, m in zip(names, numbers, strict=True)]
    assert [line[: len(e)] for line, e in zip(rows(out), expected, strict=True)] == expected
    kinds = {(r["kind"], r["replicate"], r["branch_seed"]) for r in Store("runs/b").records()}
    assert kinds >= {(k, r, s) for k in ("reinitialize", "dense") for r in (0, 1) for s in (0, 1)}
    assert before == (
        files(here / "runs" / "a"),
        files(here / "runs" / "b" / "replicate_0" / "ticket"),
    )
    assert "nothing to do: all 12 trainings are done\n" in cli(*flags)[1]


def test_a_branch_with_an_option_is_told_apart(cli, here):
    for scale in ("0", "1"):
        assert cli("branch", "runs/a", f"--controls=noise:scale={scale}")[0] == 0
    found = {r["kind"] for r in Store("runs/a").records()}
    assert found == {"ticket", "noise:scale=0", "noise:scale=1"}
    one, other = (
        Ticket.load(f"runs/a/replicate_0/noise+scale={s}-0/round_01/ticket.safetensors")
        for s in "01"
    )
    same = [np.array_equal(one.weights[p], w) for p, w in other.weights.items() if "kernel" in p]
    assert same == [False]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["runs/a"], ["--controls", *control_names()]),
        (["runs/a", "--controls=foo"], ["'foo'", *control_names()]),
        (["runs/a", "--controls=noise"], ["noise:scale=..."]),
        (["runs/a", "--controls=dense", "--rounds=x"], ["--rounds", "'x'"]),
        (["runs/a", "--controls=dense", "--rounds=1,2"], ["rounds 0 to 1", "--rounds=1,2"]),
        (["nowhere", "--controls=dense"], ["'nowhere' is not the folder of a run"]),
        (["runs/a", "runs/b", "--controls=dense"], ["Unexpected: runs/b.", "RUN"]),
        (["runs/a", "--control=dense"], ["'control'", "--controls", "--rounds", "--control_seeds"]),
        (["runs/a", "--steps=5it"], ["'steps'", "--controls"]),
    ],
)
def test_a_branch_that_cannot_be_is_refused_and_nothing_is_written(cli, here, args, words):
    before = files(here)
    refused(cli("branch", *args), *words)
    assert before == files(here)


# status --------------------------------------------------------------------------------


def test_the_status_of_all_runs_says_that_they_have_finished(cli, here):
    code, out, err = cli("status")
    assert (code, err) == (0, "")
    lines = [re.split("  +", line.strip()) for line in out.splitlines()]
    done = "2 of 2 done"
    searches = [[f"search, replicate {r}", done] for r in (0, 1)]
    assert lines == [["runs/a: finished"], searches[0], ["runs/b: finished"], *searches]


def test_the_status_says_what_is_missing_and_how_to_go_on(cli, here):
    shutil.rmtree("runs/b/replicate_1/ticket/round_01")
    code, out, _ = cli("status", "runs/b")
    headline, first, second = out.splitlines()
    assert code == 0
    assert re.fullmatch(
        r"runs/b: not running, 1 training missing, about \d:\d\d:\d\d left; the same command "
        "goes on",
        headline,
    )
    assert (first.split()[3:], second.split()[3:]) == (
        ["2", "of", "2", "done"],
        ["1", "of", "2", "done"],
    )
    lock = Store("runs/b").lock()
    try:
        assert "runs/b: running, 1 training missing" in cli("status", "runs/b")[1]
        refused(cli("branch", "runs/b", "--controls=dense"), "Another process works on", "'runs/b'")
    finally:
        lock.release()


def test_a_damaged_run_does_not_hide_the_status_of_others(cli, here):
    (here / "runs" / "a" / "config.json").write_text("{}")
    code, out, _ = cli("status")
    assert code == 0
    assert "'runs/a' is a run of format None" in out
    assert "runs/b: finished" in out
    refused(cli("status", "runs/a"), "'runs/a' is a run of format None")


@pytest.mark.parametrize("command", ["status", "report", "export", "branch"])
def test_without_a_run_it_is_said_how_to_make_one(cli, command):
    flags = ["--controls=dense"] if command == "branch" else []
    refused(cli(command, *flags), "no run under 'runs'", "keras-lottery find")


# report --------------------------------------------------------------------------------


def test_the_report_of_the_newest_run_lies_in_its_folder(cli, here):
    (here / "runs" / "b" / "report.html").unlink()
    code, out, err = cli("report")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("b: ticket: within ")
    assert out.splitlines()[-1] == f"report  {os.path.join('runs', 'b', 'report.html')}"
    assert "<html" in (here / "runs" / "b" / "report.html").read_text()


def test_runs_are_compared_on_a_page_of_their_own(cli, here):
    before = files(here / "runs")
    code, out, _ = cli("report", "runs/a", "runs/b/", "--interval=ci", "--curves=0,1")
    assert code == 0
    assert [line[:3] for line in out.splitlines()] == ["a: ", "b: ", "rep"]
    assert before == files(here / "runs")
    assert {"report.html", "comparison.png"} <= set(os.listdir(here / "report"))
    assert cli("report", "runs/a", "runs/b", "--out=mine")[0] == 0
    assert (here / "mine" / "report.html").exists()


def test_numbers_are_printed_so_that_other_programs_can_read_them(cli, here):
    records = Store("runs/b").records()
    code, out, _ = cli("report", "runs/b", "--format=csv", "--tensorboard")
    assert code == 0
    table = list(csv.DictReader(io.StringIO(out)))
    assert [(r["run"], r["kind"], int(r["replicate"]), int(r["round"])) for r in table] == [
        ("b", r["kind"], r["replicate"], r["round"]) for r in records
    ]
    assert [float(r["density"]) for r in table] == [r["density"] for r in records]
    assert list((here / "runs" / "b" / "tensorboard").rglob("events.*"))
    assert json.loads(cli("report", "runs/a", "runs/b", "--format=json")[1])
    assert not (here / "report").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nowhere"], ["'nowhere' is not the folder of a run"]),
        (["runs/a", "runs/a"], ["own name", "'a'"]),
        (["--format=xml"], ["--format=xml", "html", "csv", "json"]),
        (["--interval=std"], ["--interval=std", "range", "ci"]),
        (["--curves=x"], ["--curves", "'x'"]),
        (["--curves=7"], ["--curves", "[0, 1]", "[7]"]),
        (["--jobs=2"], ["'jobs'", "--format", "--interval", "--curves", "--out", "--tensorboard"]),
    ],
)
def test_a_report_that_cannot_be_is_refused_and_nothing_is_written(cli, here, args, words):
    before = files(here)
    refused(cli("report", *args), *words)
    assert before == files(here)


@pytest.mark.parametrize(
    ("module", "flags", "extra"),
    [("matplotlib", [], "plots"), ("tensorboard", ["--tensorboard"], "tensorboard")],
)
def test_a_report_says_which_extra_is_missing(cli, here, monkeypatch, module, flags, extra):
    monkeypatch.setitem(sys.modules, module, None)
    before = files(here)
    refused(cli("report", *flags), f"pip install 'keras-lottery[{extra}]'")
    assert before == files(here)


# presets -------------------------------------------------------------------------------


def test_presets_lists_all_with_their_source(cli):
    code, out, err = cli("presets")
    assert (code, err) == (0, "")
    for name, preset in PRESETS.items():
        assert re.search(f"^{name} +.*{re.escape(preset.source)}", out, re.MULTILINE)
    refused(cli("presets", "lth"), "'lth'", *PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_the_flags_that_a_preset_shows_give_the_same_run(cli, monkeypatch, name):
    seen = []

    def note(config, plan, *args, **options):
        seen.append((config, plan))
        raise ValueError("enough")

    monkeypatch.setattr(runner, "run", note)
    code, out, _ = cli("presets", name)
    assert code == 0
    shown = [word for word in shlex.split(out.partition("\n\n")[2]) if word.startswith("--")]
    assert shown.pop() == f"--preset={name}"
    for flags in ([f"--preset={name}"], shown):
        assert cli("find", *flags)[0] == 2
    preset = PRESETS[name]
    assert seen[0] == seen[1] == (Config(**preset.settings).complete(), Plan(preset.rounds))
    assert seen[0][0].identity() == seen[1][0].identity()
