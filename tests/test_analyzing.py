"""Analyses of a run: copies trained once, what is found, and what is written of it."""

import dataclasses
import math
import shutil

import numpy as np
import pytest

from keras_lottery import Ticket
from keras_lottery.analysis.anatomy import Anatomy, LayerAnatomy
from keras_lottery.analysis.comparing import Case
from keras_lottery.analysis.distances import distance
from keras_lottery.experiments import runner, setup
from keras_lottery.experiments.analyzing import findings
from keras_lottery.experiments.analyzing.anatomy import _flops, anatomy
from keras_lottery.experiments.analyzing.comparing import compared, wanted
from keras_lottery.experiments.analyzing.connectivity import connectivity
from keras_lottery.experiments.analyzing.copies import Copies, kinds
from keras_lottery.experiments.analyzing.landscape import landscape
from keras_lottery.experiments.analyzing.overlap import overlap
from keras_lottery.experiments.analyzing.runs import Run
from keras_lottery.experiments.analyzing.stability import stability
from keras_lottery.experiments.config import Config
from keras_lottery.experiments.live import Live
from keras_lottery.experiments.plan import Branch, Plan
from keras_lottery.experiments.searching import Start, _seed
from keras_lottery.experiments.store import TICKET, Place, Store
from keras_lottery.experiments.training import Trainer
from keras_lottery.experiments.watching import Silent

CONFIG = Config(
    subset=120, steps="12it", eval_every="4it", batch_size=20, rewind_to="4it", prune_fraction=0.5
)
QUIET = Live(quiet=True)
DENSE, SPARSE = Case("dense", 4, 0, 0), Case("ticket", 4, 0, 0)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run of three rounds and two replicates."""
    folder = tmp_path_factory.mktemp("analyzing") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "use_jit", lambda model: False)
        runner.run(CONFIG, Plan(3, 2, (Branch("random_mask"),)), folder, QUIET)
    return folder


@pytest.fixture(scope="module")
def with_copies(original):
    """The same run with the copies of round 2 that an analysis needs by default."""
    folder = original.with_name("with_copies")
    shutil.copytree(original, folder)
    return folder, stability([Run(folder)], QUIET, rounds=[2])


@pytest.fixture
def fresh(original, tmp_path):
    """A run of one's own, without copies."""
    shutil.copytree(original, tmp_path / "run")
    return Run(tmp_path / "run")


def copies(run, seconds=0.0):
    return Copies(run, kinds([2]), seconds)


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[p], b[p]) for p in a)


# copies --------------------------------------------------------------------------------


def test_copies_are_trained_once_and_the_runs_records_do_not_see_them(with_copies, original):
    folder, _ = with_copies
    found, run = copies(Run(folder)), Run(folder)
    cases = found.cases([4], [0, 1], 2)
    assert len(cases) == 12
    before = {c: found.place(c).trained.stat().st_mtime_ns for c in cases}
    assert found.train(cases, Silent()) == 0
    assert before == {c: found.place(c).trained.stat().st_mtime_ns for c in cases}
    assert Store(folder).records() == Store(original).records()
    assert list(run.records) == [0, 1]


def test_one_order_gives_all_kinds_the_same_batches_and_another_order_others(fresh, monkeypatch):
    seen, train = [], Trainer.train

    def noted(self, start, seed, *args):
        seen.append(seed)
        return train(self, start, seed, *args)

    monkeypatch.setattr(Trainer, "train", noted)
    cases = copies(fresh).cases([4], [0], 2) + [Case("dense", 4, 1, 0)]
    copies(fresh).train(cases, Silent())
    first, second, other = seen[0], seen[1], seen[6]
    assert seen[:6] == [first, second] * 3
    assert len({first, second, other}) == 3


def test_a_dense_copy_trained_twice_is_the_same_to_the_bit(with_copies, fresh):
    folder, _ = with_copies
    copies(fresh).train([DENSE], Silent())
    here, there = (copies(r).trained(DENSE) for r in (fresh, Run(folder)))
    assert distance(here, there) == 0
    assert distance(here, copies(Run(folder)).trained(Case("dense", 4, 0, 1))) > 0


def test_a_copy_starts_from_the_state_at_step_k_under_its_masks(with_copies):
    run = Run(with_copies[0])
    found, rewind = copies(run), run.replicate(0).rewind_point()
    start = Ticket.load(found.place(SPARSE).ticket)
    assert same(start.masks, run.replicate(0).ticket(2).masks)
    random = Ticket.load(found.place(Case("random_mask", 4, 0, 0)).ticket)
    counts = [[int(m.sum()) for m in t.masks.values()] for t in (start, random)]
    assert counts[0] == counts[1]
    assert not same(start.masks, random.masks)
    for ticket in (start, random):
        for path, mask in ticket.masks.items():
            assert np.array_equal(ticket.weights[path], np.where(mask, rewind.variables[path], 0))


class Interrupting(Silent):
    """Interrupts after so many evaluations."""

    def __init__(self, after):
        self.left = after

    def advance(self, steps, numbers):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def test_interrupted_copies_go_on_to_the_same_bits(fresh, with_copies):
    cases = copies(fresh).cases([4], [0], 2)
    for after in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            copies(fresh).train(cases, Interrupting(after))
    assert not Store(fresh.folder).locked()
    assert 1 <= copies(fresh).train(cases, Silent()) < 6
    for case in cases:
        places = [copies(r).place(case) for r in (fresh, Run(with_copies[0]))]
        assert places[0].trained.read_bytes() == places[1].trained.read_bytes()
        assert places[0].record()["curve"] == places[1].record()["curve"]


@pytest.mark.parametrize("step", [2, 8])
def test_the_state_at_another_step_is_that_of_the_dense_round(fresh, step):
    found = copies(fresh)
    state = found._state(Case("dense", step, 0, 0), Silent())
    assert state.step == step
    replicate, total = fresh.replicate(0), fresh.trainer.lengths.total
    ticket = replicate.ticket(0)
    began = Ticket(ticket.masks, {p: state.variables[p] for p in ticket.weights})
    start = Start(began, state, total, order=_seed(replicate.seed, TICKET, 0, 0))
    replicate.train(Place(fresh.folder / "again"), start, "dense", 0)
    again = Ticket.load(fresh.folder / "again" / "trained.safetensors")
    assert same(again.weights, replicate.trained(0).weights)


def test_a_copy_of_masks_that_the_run_no_longer_has_is_refused(with_copies, tmp_path):
    shutil.copytree(with_copies[0], tmp_path / "run")
    run = Run(tmp_path / "run")
    place = Store(run.folder).place(0, 2)
    ticket = Ticket.load(place.ticket)
    Ticket({p: ~m for p, m in ticket.masks.items()}, ticket.weights, {}).save(place.ticket)
    with pytest.raises(ValueError, match=r"has other masks.*Remove the folder"):
        copies(run).trained(SPARSE)


def test_copies_are_not_trained_while_another_process_works_on_the_run(fresh):
    lock = Store(fresh.folder).lock()
    try:
        with pytest.raises(ValueError, match="Another process works on the run"):
            copies(fresh).train([DENSE], Silent())
    finally:
        lock.release()


def test_a_copy_that_becomes_nan_says_which(fresh, monkeypatch):
    train = Trainer.train

    def broken(self, *args):
        end = train(self, *args)
        next(iter(end.snapshot.variables.values()))[:] = math.nan
        return end

    monkeypatch.setattr(Trainer, "train", broken)
    with pytest.raises(ValueError, match=r"step_4/dense/order_0.*cannot be used.*NaN"):
        copies(fresh).train([DENSE], Silent())
    assert not copies(fresh).place(DENSE).done


# what is found -------------------------------------------------------------------------


def test_stability_has_the_distances_of_the_copies(with_copies):
    folder, found = with_copies
    run = Run(folder)
    rows = {(r["what"], r["kind"]): r for r in found.numbers["rows"]}
    sparse = {(what, kind) for what in ("order", "pruning") for kind in ("ticket", "random_mask")}
    assert set(rows) == {("order", "dense"), *sparse}
    expected = []
    for r in (0, 1):
        a, b = (copies(run).trained(Case("ticket", 4, r, u)) for u in (0, 1))
        mask = run.replicate(r).ticket(2).masks
        expected.append(math.sqrt(sum(((a[p] - b[p])[m] ** 2).sum() for p, m in mask.items())))
    own = rows["order", "ticket"]
    assert own["n"] == 2
    assert own["distance_mean"] == pytest.approx(np.mean(expected), rel=1e-6)
    assert own["distance_std"] == pytest.approx(np.std(expected, ddof=1), rel=1e-4)
    ratio = rows["order", "random_mask"]["distance_mean"] / own["distance_mean"]
    (cells,) = (c for c in found.tables[0].rows if c[0] == "data order" and c[2] == "random mask")
    assert cells[-2] == f"{ratio:.2f}"
    ends = {(r["kind"], r["step"]): r["test_accuracies"] for r in found.numbers["test_accuracies"]}
    record = copies(run).place(Case("dense", 4, 1, 1)).record()
    assert ends["dense", 4][-1] == record["end"]["test_accuracy"]


def test_connectivity_shares_the_copies_and_ends_where_they_do(with_copies, monkeypatch):
    folder, _ = with_copies
    monkeypatch.setattr(Trainer, "train", None)  # nothing may be trained
    found = connectivity([Run(folder)], QUIET, rounds=[2], points=3, replicates=1, train_images=50)
    assert [r["kind"] for r in found.numbers["rows"]] == ["dense", "ticket", "random_mask"]
    for one in found.numbers["comparisons"]:
        test = one["barrier"]["values"]["test"]
        ends = [
            1
            - copies(Run(folder)).place(Case(one["kind"], 4, 0, u)).record()["end"]["test_accuracy"]
            for u in (0, 1)
        ]
        assert [test[0], test[-1]] == pytest.approx(ends, abs=1e-6)
        assert one["heights"]["test"] == pytest.approx(max(test) - sum(ends) / 2, abs=1e-6)
    assert {p.name for p in found.pictures} == {"connectivity", "connectivity_line_4"}
    assert "measured on the first 50 of 120 training images" in " ".join(found.words)


def test_runs_that_share_a_step_are_told_apart(with_copies, tmp_path):
    shutil.copytree(with_copies[0], tmp_path / "other")
    runs = [Run(with_copies[0]), Run(tmp_path / "other")]
    found = compared(wanted(runs, [2], [], 2, 1), QUIET, 0.0)
    kinds_ = {c.kind for c in found.stability.comparisons}
    assert {"ticket, with_copies", "ticket, other"} < kinds_
    alone = compared(wanted(runs[:1], [2], [], 2, 1), QUIET, 0.0)
    assert {c.kind for c in alone.stability.comparisons} == {"dense", "ticket", "random_mask"}


def test_anatomy_has_the_counts_and_early_stops_of_the_records(original):
    run = Run(original)
    found = anatomy([run], QUIET, replicate=1)
    own = found.numbers["runs"]["run"]
    assert own["rounds"] == [0, 1, 2]
    for r in range(3):
        record = run.records[1][r]
        assert own["totals"][str(r)]["density"] == pytest.approx(record["density"])
        assert own["stops"][str(r)]["step"] == record["early_stop"]["step"]
        alive = sum(int(m.sum()) for m in run.replicate(1).ticket(r).masks.values())
        assert own["totals"][str(r)]["flops_alive"] == 2 * alive
        kernel = next(iter(run.replicate(1).ticket(r).masks.values()))
        assert np.array_equal(np.ravel(own["pixels"][str(r)]), kernel.sum(axis=1))
    assert "anatomy_pixels" in {p.name for p in found.pictures}
    speed = run.records[1][0]["early_stop"]["step"] / run.records[1][2]["early_stop"]["step"]
    assert found.tables[0].rows[2][-1] == f"{speed:.2f}x"


def test_operations_that_are_not_known_are_a_dash():
    layer = LayerAnatomy("w", (2, 1), 1, 2, 0.5, None, [], [], 0, 1, None, None, None)
    assert _flops(Anatomy([layer], unknown=["w"])) == findings.DASH
    known = dataclasses.replace(layer, macs=4, macs_alive=2)
    assert _flops(Anatomy([layer, known], unknown=["w"])) == "4 without w"


def test_overlap_takes_runs_controls_files_and_folders(original, tmp_path):
    found = overlap([original], QUIET, rounds=[2], controls=["random_mask"])
    names = found.numbers["names"]
    assert names[:2] == ["replicate 0, round 2", "replicate 1, round 2"]
    assert names[2] == "random mask, replicate 0, round 2"
    tickets = [Run(original).replicate(r).ticket(2) for r in (0, 1)]
    both = sum(int((m & tickets[1].masks[p]).sum()) for p, m in tickets[0].masks.items())
    either = sum(int((m | tickets[1].masks[p]).sum()) for p, m in tickets[0].masks.items())
    assert found.numbers["jaccard"][0][1] == pytest.approx(both / either)
    a_copy = f"sub/{findings.FOLDER}/copies/c"  # of a run below the folder
    (tmp_path / a_copy).parent.mkdir(parents=True)
    for name, ticket in zip(("a", "sub/b", a_copy), [*tickets, tickets[0]], strict=True):
        ticket.save(tmp_path / f"{name}.safetensors")
    (tmp_path / "notes.safetensors").write_bytes(b"no ticket")
    from_folder = overlap([tmp_path], QUIET)
    assert from_folder.numbers["names"] == ["a", "sub/b"]
    assert from_folder.numbers["jaccard"][0][1] == found.numbers["jaccard"][0][1]
    one = tmp_path / "a.safetensors"
    mixed = overlap([original, one], QUIET, rounds=[2], replicates=1)
    assert mixed.numbers["jaccard"][0][1] == 1.0
    files = overlap([one, tmp_path / "sub" / "b.safetensors"], QUIET)
    assert files.numbers["names"] == ["a", "sub/b"]
    with pytest.raises(ValueError, match=r"need 2 to .* Received: 1"):
        overlap([one], QUIET)
    with pytest.raises(ValueError, match="keras-lottery branch"):
        overlap([original], QUIET, rounds=[2], controls=["reinitialize"])


def test_the_middle_of_a_landscape_is_the_trained_round(original):
    found = landscape([Run(original)], QUIET, rounds=[1], points=3, dimensions=2, replicate=1)
    values = found.numbers["landscapes"]["round 1"]["values"]
    end = Run(original).records[1][1]["end"]
    assert values["test"][1][1] == pytest.approx(end["test_loss"], rel=1e-5)
    assert np.shape(values["train"]) == (3, 3)
    assert min(np.ravel(values["train"])) == pytest.approx(values["train"][1][1])


def test_landscapes_of_one_and_two_directions_stay_side_by_side(original, tmp_path):
    for dimensions in (1, 2):
        found = landscape([Run(original)], QUIET, rounds=[1], points=2, dimensions=dimensions)
        assert {row[2] for row in found.tables[0].rows} == {findings.DASH}
        found.write(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"landscape{n}.{kind}" for n in ("", "2d") for kind in ("json", "png", "svg")}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rounds": [7]}, r"finished rounds.*\[0, 1, 2\].*Received: \[7\]"),
        ({"steps": ["12it"]}, r"before the end of a training, step 12 .*Received: \[12\]"),
        ({"steps": ["soon"]}, "Received: 'soon'"),
        ({"replicates": 3}, "has 2 replicates.*3"),
        ({"orders": 1}, "orders"),
    ],
)
def test_copies_that_cannot_be_are_refused_before_anything_is_trained(fresh, options, words):
    with pytest.raises(ValueError, match=words):
        stability([fresh], QUIET, **options)
    assert not (fresh.folder / findings.FOLDER).exists()


def test_the_default_round_is_the_one_nearest_to_the_papers_density(original):
    run = Run(original)
    assert run.rounds([], [0, 1]) == [2]
    assert run.steps([]) == [4]
    with pytest.raises(ValueError, match="replicate` 5"):
        anatomy([run], QUIET, replicate=5)


def test_a_run_of_other_data_is_refused(fresh):
    config = Store(fresh.folder).config()
    config["facts"]["data"] = "00000000"
    Store(fresh.folder).save_config(config)
    with pytest.raises(ValueError, match="made with other data"):
        landscape([fresh], QUIET)
