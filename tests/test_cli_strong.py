"""`keras-lottery strong`: each method once, what it leaves, what it refuses."""

import json
from pathlib import Path

import pytest
from commands import make_place

from keras_lottery import Ticket
from keras_lottery.experiments import models
from keras_lottery.experiments.strong_tickets import METHODS, SEARCHES, StrongConfig

TINY = ["--model=command_nets:small", "--steps=4it", "--batch_size=12", "--seeds=1"]


@pytest.fixture
def here(tmp_path, cli):
    """An empty folder with the models of the tests and a data set."""
    make_place(tmp_path)
    return tmp_path


def found(folder):
    return json.loads((folder / "results.json").read_text())["results"]


@pytest.mark.parametrize("method", SEARCHES)
def test_a_search_leaves_weights_as_they_were_and_saves_its_ticket(here, cli, method):
    code, out, err = cli(
        "strong", f"--method={method}", "--dataset=tiny.npz", *TINY, "--workdir=w", "--fine_tune"
    )
    assert (code, err) == (0, "")
    (result,) = found(here / "w")
    assert result["unchanged"]  # four steps are too few for iterand to draw anew
    assert {"whole", "random_mask", "strong", "fine_tuned"} <= set(result)
    ticket = Ticket.load(here / "w" / "strong_0.safetensors")
    assert ticket.density == result["density"]
    assert Ticket.load(here / "w" / "fine_tuned_0.safetensors").density == ticket.density
    assert "strong" in out and "w/results.json" in out


@pytest.mark.parametrize("structure", ["relu", "linear"])
def test_a_constructed_network_is_measured_itself(here, cli, structure):
    arguments = ["--dataset=tiny.npz", *TINY, "--workdir=w", f"--structure={structure}"]
    code, out, _ = cli("strong", "--method=subset_sum", *arguments)
    assert code == 0
    (result,) = found(here / "w")
    assert result["largest_error"] <= 0.01
    assert abs(result["strong"] - result["target"]) <= 0.2
    assert "target" in out


def test_half_of_the_weights_of_a_random_network_classify_digits(here, cli):
    code, _, _ = cli("strong", "--steps=6ep", "--seeds=1", "--workdir=w")
    assert code == 0
    (result,) = found(here / "w")
    assert result["density"] == pytest.approx(0.5, abs=1e-4)
    assert result["unchanged"]
    assert result["strong"] > 0.85 > 0.4 > max(result["whole"], result["random_mask"])
    model = models.build("lenet_300_100", (8, 8, 1), 10)
    Ticket.load(here / "w" / "strong_0.safetensors").apply(model)


@pytest.mark.parametrize(
    ("flag", "word"),
    [
        ("--method=luck", "edge_popup"),
        ("--density=0", "density"),
        ("--steps=4", "500it"),
        ("--steps=0it", "steps"),
        ("--tolerance=0", "tolerance"),
        ("--dataset=none.npz", "none.npz"),
        ("--model=nothing", "lenet_300_100"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(here, cli, flag, word):
    code, _, err = cli("strong", flag)
    assert code == 2
    assert word in err and len(err.splitlines()) == 1
    assert not Path("runs").exists()


def test_a_folder_that_is_there_is_left_alone(here, cli):
    (here / "w").mkdir()
    code, _, err = cli("strong", "--workdir=w")
    assert (code, "exists already" in err) == (2, True)
    assert list((here / "w").iterdir()) == []


def test_the_default_method_is_one_of_the_methods():
    assert StrongConfig().method in METHODS
