"""Plans: controls and their options, joined plans, and the tasks they make."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lottery.experiments.plan import (
    NAMED,
    OWN,
    Branch,
    Plan,
    Task,
    branches,
    control_names,
    parse_control,
)

# What each control needs so that it can be parsed, and one more option that it takes.
NEEDS = {"noise": ":scale=1", "transfer": ":dataset=mnist"}
TAKES = {
    "reinitialize": ("rescale=true", {"rescale": True}),
    "random_mask": ("counts=global", {"counts": "global"}),
    "resample_survivors": ("replace=False", {"replace": False}),
    "noise": ("scale=0.5", {"scale": 0.5}),
    "keep_signs": ("rescale=true", {"rescale": True}),
    "signed_constant": ("rescale=false", {"rescale": False}),
    "random_signed_constant": ("rescale=true", {"rescale": True}),
    "one_shot": ("counts=even", {"counts": "even"}),
    "prune_at_init_magnitude": ("counts=layerwise", {"counts": "layerwise"}),
    "transfer": ("learning_rate=1e-3", {"learning_rate": 0.001}),
}
PLAIN = sorted(set(control_names()) - set(TAKES))


# Controls ---------------------------------------------------------------------------------


def test_there_are_nineteen_controls():
    assert control_names() == sorted({*NAMED, *OWN})
    assert len(control_names()) == 19 and {"dense", "noise", "freeze_init"} < {*control_names()}


@pytest.mark.parametrize("name", control_names())
def test_a_control_is_parsed_with_what_it_needs(name):
    found, options = parse_control(name + NEEDS.get(name, ""))
    assert found == name and len(options) == (name in NEEDS)


@pytest.mark.parametrize("name", TAKES)
def test_an_option_has_the_type_it_looks_like(name):
    text, options = TAKES[name]
    found, parsed = parse_control(f"{name}:{text}")
    assert (found, parsed) == (name, options)
    assert [type(v) for v in parsed.values()] == [type(v) for v in options.values()]


@pytest.mark.parametrize("name", control_names())
def test_an_option_that_it_has_not_is_refused(name):
    words = "Unknown settings" if name == "transfer" else rf"{name!r} has no option \['size'\]"
    with pytest.raises(ValueError, match=words):
        parse_control(f"{name}:size=3")


@pytest.mark.parametrize("name", sorted(NAMED))
@pytest.mark.parametrize("given", ["ticket", "model", "seed", "dense", "trained"])
def test_what_the_run_gives_is_no_option(name, given):
    with pytest.raises(ValueError, match="has no option"):
        parse_control(f"{name}:{given}=1")


@pytest.mark.parametrize("name", PLAIN)
def test_a_control_without_options_says_so(name):
    with pytest.raises(ValueError, match=r"Its options: \[\]"):
        parse_control(f"{name}:scale=1")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            "nois",
            r"Unknown control 'nois'\. The controls are: \['continued_training'.*'transfer'\]",
        ),
        ("", "Unknown control ''"),
        ("ticket", "Unknown control 'ticket'"),
        ("Noise:scale=1", "Unknown control 'Noise'"),
        ("noise", r"'noise' needs \['scale'\]: noise:scale="),
        ("noise:", "Expected options as `noise:option=value`. Received: 'noise:'"),
        ("noise:scale", "Expected options as `noise:option=value`. Received: 'noise:scale'"),
        ("noise:=1", "Expected options"),
        ("noise:scale=much", "`noise:scale` must be a number. Received: 'much'"),
        ("noise:scale=", "`noise:scale` must be a number. Received: ''"),
        ("noise:scale=true", "`noise:scale` must be a number"),
        ("reinitialize:rescale=2", "`reinitialize:rescale` must be true or false. Received: 2"),
        ("one_shot:counts=some", "`one_shot:counts` must be one of .*'even'.* Received: 'some'"),
        ("transfer", "transfer:dataset=mnist"),
        ("transfer:batch_size=0", "`batch_size` must be at least 1"),
        ("transfer:steps=100", "`steps` must be a text"),
        ("transfer:dataset=none", "`dataset` must be a text"),
    ],
)
def test_a_control_that_cannot_be_is_refused(spec, words):
    with pytest.raises(ValueError, match=words):
        parse_control(spec)
    with pytest.raises(ValueError, match=words):
        Branch(spec)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("dataset=../data/x.npz", {"dataset": "../data/x.npz"}),
        ("dataset=cmaterdb:1.0.0", {"dataset": "cmaterdb:1.0.0"}),
        ("dataset=C:\\data\\x.npz", {"dataset": "C:\\data\\x.npz"}),
        ("model=mine:tiny:seed=3", {"model": "mine:tiny", "seed": 3}),
        ("steps=10it:batch_size=8", {"steps": "10it", "batch_size": 8}),
        ("dropout=none:cosine=true", {"dropout": None, "cosine": True}),
        ("dataset=a=b", {"dataset": "a=b"}),
    ],
)
def test_settings_of_a_transfer(text, options):
    assert parse_control(f"transfer:{text}") == ("transfer", options)


# Branches and tasks -----------------------------------------------------------------------


def test_a_branch_takes_all_rounds_but_the_dense_one():
    assert Branch("reinitialize").chosen(4) == [1, 2, 3]
    assert Branch("reinitialize").chosen(1) == []
    assert Branch("reinitialize", rounds=(0, 2, 9)).chosen(4) == [0, 2]
    assert Branch("reinitialize", rounds=()).chosen(4) == []
    assert Branch("dense", rounds=(2,)).chosen(4) == [0]


@pytest.mark.parametrize(
    ("values", "name"),
    [({"seeds": 0}, "seeds"), ({"seeds": 1.5}, "seeds"), ({"rounds": (-1,)}, "rounds"),
     ({"rounds": (True,)}, "rounds")],
)  # fmt: skip
def test_a_branch_that_cannot_be_is_refused(values, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        Branch("dense", **values)


@pytest.mark.parametrize("name", ["rounds", "replicates"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_a_plan_that_cannot_be_is_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        Plan(**{name: value})


def test_the_tasks_of_a_small_plan_by_hand():
    plan = Plan(3, 2, (Branch("reinitialize", 2), Branch("dense", 1, (5,))))
    assert plan.searches() == [Task(0, "ticket", 0, (0, 1, 2)), Task(1, "ticket", 0, (0, 1, 2))]
    assert plan.controls()[:3] == [
        Task(0, "reinitialize", 0, (1, 2)),
        Task(0, "reinitialize", 1, (1, 2)),
        Task(0, "dense", 0, (0,)),
    ]
    assert [t.replicate for t in plan.controls()] == [0] * 3 + [1] * 3


def test_a_control_without_a_round_is_no_task():
    plan = Plan(rounds=2, branches=(Branch("reinitialize", 3, (5,)),))
    assert plan.controls() == []


def test_a_task_has_a_title():
    assert Task(0, "ticket", 0, (0,)).title == "search, replicate 0"
    assert Task(1, "random_mask", 2, (1,)).title == "random mask 2, replicate 1"


def test_branches_share_seeds_and_rounds():
    made = branches(["dense", "reinitialize", "dense"], 2, [3, 1, 3])
    assert made == (Branch("dense", 2), Branch("reinitialize", 2, (1, 3)))
    assert branches(["reinitialize"]) == (Branch("reinitialize", 1, None),)
    assert branches([]) == ()


# Joining ----------------------------------------------------------------------------------


def test_joined_plans_do_what_either_asks():
    one = Plan(3, 2, (Branch("dense"), Branch("reinitialize", 3, (1,))))
    other = Plan(5, 1, (Branch("reinitialize", 1, (2,)), Branch("noise:scale=1")))
    joined = one.joined(other)
    assert (joined.rounds, joined.replicates) == (5, 2)
    assert joined.branches == (
        Branch("dense"),
        Branch("reinitialize", 3, (1, 2)),
        Branch("noise:scale=1"),
    )


def test_all_rounds_and_some_are_all():
    every = Plan(branches=(Branch("reinitialize"),))
    some = Plan(branches=(Branch("reinitialize", 1, (1,)),))
    assert some.joined(every) == every.joined(some) == every


def test_round_0_is_kept_beside_all_others():
    every = Plan(3, branches=(Branch("reinitialize"),))
    joined = every.joined(Plan(3, branches=(Branch("reinitialize", 2, (0,)),)))
    assert joined.branches == (Branch("reinitialize", 2), Branch("reinitialize", 2, (0,)))
    assert joined.joined(every) == joined


SPECS = st.sampled_from(["dense", "reinitialize", "noise:scale=1", "noise:scale=2", "freeze_init"])
ROUNDS = st.none() | st.sets(st.integers(0, 9), min_size=1).map(lambda r: tuple(sorted(r)))
BRANCHES = st.lists(
    st.builds(Branch, SPECS, st.integers(1, 3), ROUNDS), unique_by=lambda b: b.control
)
PLANS = st.builds(Plan, st.integers(1, 6), st.integers(1, 3), BRANCHES.map(tuple))


def work(plan):
    """Every training of a plan."""
    tasks = plan.searches() + plan.controls()
    return {(t.replicate, t.kind, t.seed, r) for t in tasks for r in t.rounds}


@given(PLANS, PLANS)
def test_a_joined_plan_loses_nothing_and_joins_once(one, other):
    joined = one.joined(other)
    assert work(one) | work(other) <= work(joined) == work(other.joined(one))
    assert joined.joined(other) == joined.joined(one) == joined.joined(joined) == joined


@given(PLANS, PLANS)
def test_no_training_is_in_two_tasks(one, other):
    plan = one.joined(other)
    tasks = plan.searches() + plan.controls()
    assert len(work(plan)) == sum(len(t.rounds) for t in tasks)


@given(PLANS)
def test_a_plan_goes_through_json(plan):
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
