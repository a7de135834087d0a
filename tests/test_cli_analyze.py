"""Analyses from the command line: what they write, print and refuse."""

import json
import os
import shutil
import sys

import pytest
from commands import TINY, call, files, make_place

from keras_lottery.experiments import setup
from keras_lottery.experiments.searching import Replicate
from keras_lottery.experiments.store import Store

ANALYSES = ("stability", "connectivity", "anatomy", "overlap", "landscape")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with two runs under `runs/`; the newer one, `b`, has two replicates."""
    folder = tmp_path_factory.mktemp("made")
    make_place(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(setup, "use_jit", lambda model: False)
        flags = ["find", "--dataset=tiny.npz", *TINY, "--rounds=2", "--verbosity=-1"]
        assert call(*flags, "--workdir=runs/a", "--rewind_to=2it") == 0
        assert call(*flags, "--workdir=runs/b", "--replicates=2") == 0
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A copy of these runs of one's own; `cli` works in it."""
    monkeypatch.setattr(setup, "use_jit", lambda model: False)
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, copy_function=shutil.copy2)
    return tmp_path


def page(path):
    return (path / "report.html").read_text()


def test_stability_and_connectivity_write_a_section_and_share_their_copies(cli, here):
    run = here / "runs" / "b"
    code, out, err = cli("analyze", "stability", "--rounds=1")
    assert (code, err) == (0, "")
    assert "b: 12 copies trained, 0 were there" in out
    assert f"report    {os.path.join('runs', 'b', 'report.html')}\n" in out
    copies = {p: data for p, data in files(run).items() if "copies" in p and "safetensors" in p}
    code, out, err = cli("analyze", "connectivity", "--rounds=1", "--points=3")
    assert (code, err) == (0, "")
    assert "b: 0 copies trained, 12 were there" in out
    assert copies.items() <= files(run).items()
    for name in ("stability", "connectivity"):
        found = json.loads((run / "analysis" / f"{name}.json").read_text())
        assert found["title"] in page(run)
        assert (run / "analysis" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (run / "analysis" / f"{name}.svg").read_bytes()
    assert len(Store(run).records()) == 4
    before = page(run)
    assert cli("report", "runs/b")[0] == 0
    assert page(run) == before


def test_runs_of_other_rewind_points_make_one_figure_on_a_page_of_their_own(cli, here):
    flags = ["--rounds=1", "--points=2", "--replicates=1"]
    code, out, err = cli("analyze", "connectivity", "runs/a", "runs/b", *flags)
    assert (code, err) == (0, "")
    found = json.loads((here / "analysis" / "connectivity.json").read_text())
    assert {(r["kind"], r["step"]) for r in found["numbers"]["rows"]} == {
        (kind, step) for kind in ("dense", "ticket", "random_mask") for step in (0, 2)
    }
    text = (here / "analysis" / "analysis.html").read_text()
    assert "Linear mode connectivity" in text
    assert "The early stop of a training" not in text
    assert not (here / "runs" / "a" / "analysis" / "connectivity.json").exists()
    assert "page      analysis/analysis.html" in out


@pytest.mark.parametrize("analysis", ["anatomy", "overlap", "landscape"])
def test_the_newest_run_is_analyzed_and_nothing_is_trained(cli, here, monkeypatch, analysis):
    monkeypatch.setattr(Replicate, "train", None)
    code, out, err = cli("analyze", analysis)
    assert (code, err) == (0, "")
    found = json.loads((here / "runs" / "b" / "analysis" / f"{analysis}.json").read_text())
    assert found["title"] in page(here / "runs" / "b")
    assert all(n in out for n in found["tables"][0]["columns"])


def test_tickets_of_folders_are_compared(cli, here):
    folders = ["runs/a/replicate_0", "runs/b/replicate_1"]
    assert cli("analyze", "overlap", *folders, "--out=mine")[0] == 0
    assert (here / "mine" / "analysis.html").exists()
    found = json.loads((here / "mine" / "overlap.json").read_text())
    assert found["numbers"]["names"] == [
        f"replicate_{r}: ticket/round_0{i}/ticket" for r in (0, 1) for i in (0, 1)
    ]
    assert found["numbers"]["jaccard"][0][2] == 1.0


def test_an_interrupted_analysis_keeps_its_copies_and_goes_on(cli, here, monkeypatch):
    train, done = Replicate.train, []

    def interrupted(self, *args, **options):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(train(self, *args, **options))

    with monkeypatch.context() as patch:
        patch.setattr(Replicate, "train", interrupted)
        code, out, err = cli("analyze", "stability", "--rounds=1", "--replicates=1")
    assert code == 130
    assert "Traceback" not in err
    assert "the same command goes on" in out
    code, out, _ = cli("analyze", "stability", "--rounds=1", "--replicates=1")
    assert code == 0
    assert "b: 4 copies trained, 2 were there" in out


def test_a_quiet_analysis_prints_nothing(cli, here):
    assert cli("analyze", "anatomy", "--verbosity=-1") == (0, "", "")
    assert (here / "runs" / "b" / "analysis" / "anatomy.json").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], [*ANALYSES, "none"]),
        (["runs/b"], [*ANALYSES, "runs/b"]),
        (["anatomy", "nowhere"], ["'nowhere' is not the folder of a run"]),
        (["overlap", "nowhere"], ["nowhere"]),
        (["anatomy", "runs/a", "runs/a/"], ["own name", "'a'"]),
        (["anatomy", "--steps=1it"], ["--steps", "anatomy", "stability, connectivity"]),
        (["stability", "--points=3"], ["--points", "stability", "connectivity, landscape"]),
        (["overlap", "--dimensions=2"], ["--dimensions", "overlap", "with: landscape"]),
        (["stability", "--rounds=x"], ["--rounds", "'x'"]),
        (["stability", "--rounds=9"], ["--rounds", "[0, 1]", "[9]"]),
        (["stability", "--steps=6it"], ["--steps", "step 6", "[6]"]),
        (["stability", "--steps=6"], ["500it", "'6'"]),
        (["stability", "--replicates=3"], ["--replicates 3", "2 replicates"]),
        (["landscape", "--replicate=2"], ["--replicate 2", "[0, 1]"]),
        (["landscape", "--reach=0"], ["--reach", "0"]),
        (["landscape", "--dimensions=3"], ["--dimensions", "3"]),
        (["connectivity", "--batchnorm=x"], ["--batchnorm", "interpolate", "recompute"]),
        (["overlap", "--controls=foo"], ["'foo'"]),
        (["overlap", "--replicates=1"], ["Received: 1"]),
        (["anatomy", "--round=1"], ["'round'", "--rounds", "--replicate"]),
    ],
)
def test_an_analysis_that_cannot_be_is_refused_and_nothing_is_written(cli, here, args, words):
    before = files(here)
    code, _, err = cli("analyze", *args)
    assert code == 2
    assert len(err.splitlines()) == 1, err
    for word in words:
        assert word in err
    assert before == files(here)


def test_without_a_run_it_is_said_how_to_make_one(cli):
    code, _, err = cli("analyze", "anatomy")
    assert code == 2
    assert "keras-lottery find" in err
