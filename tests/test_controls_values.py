"""Controls of other values under the ticket's masks, on four weights by hand."""

import inspect
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from some_tickets import dense_of, four, mlp, of, same, w

import keras_lottery as kl

C = kl.controls
DENSE = four([-3.0, -1.0, 1.0, 3.0])
SIGMA = np.float32(5**0.5)
TICKET = four([-3.0, -1.0, 1.0, 3.0], (1, 0, 1, 1))
CONTROLS = {
    "resample_survivors": lambda t, seed, d: C.resample_survivors(t, seed),
    "reshuffle": lambda t, seed, d: C.resample_survivors(t, seed, replace=False),
    "signed_reshuffle": lambda t, seed, d: C.signed_reshuffle(t, seed),
    "signed_constant": lambda t, seed, d: C.signed_constant(t, d),
    "random_signed_constant": lambda t, seed, d: C.random_signed_constant(t, seed, d),
    "noise": lambda t, seed, d: C.noise(t, seed, 1.0, d),
}


def test_resampling_draws_from_the_survivors_with_replacement():
    draws = [w(C.resample_survivors(TICKET, seed)) for seed in range(200)]
    assert all(d[1] == 0 and set(d) <= {-3.0, 0.0, 1.0, 3.0} for d in draws)
    assert any(d[0] == d[2] == d[3] for d in draws)  # only replacement can do this
    assert {d[0] for d in draws} == {-3.0, 1.0, 3.0}


def test_reshuffling_permutes_the_survivors():
    draws = [w(C.resample_survivors(TICKET, seed, replace=False)) for seed in range(60)]
    assert all(d[1] == 0 and sorted(d) == [-3.0, 0.0, 1.0, 3.0] for d in draws)
    assert len({tuple(d) for d in draws}) == 6


def test_signed_reshuffling_permutes_magnitudes_and_leaves_signs():
    draws = {tuple(w(C.signed_reshuffle(TICKET, seed))) for seed in range(60)}
    assert draws == {(-3.0, 0.0, 1.0, 3.0), (-3.0, 0.0, 3.0, 1.0), (-1.0, 0.0, 3.0, 3.0)}


def test_a_signed_constant_is_the_sign_times_the_spread_of_all_initial_values():
    # The variance of -3, -1, 1, 3 is 5; that of the survivors -3, 1, 3 would be 6.2.
    assert w(C.signed_constant(TICKET, DENSE)) == [-SIGMA, 0.0, SIGMA, SIGMA]


def test_a_rescaled_constant_is_larger_by_the_layers_size_over_its_survivors():
    scaled = C.signed_constant(TICKET, DENSE, rescale=True)
    expected = np.array([-1.0, 0.0, 1.0, 1.0]) * 5**0.5 * 4 / 3
    np.testing.assert_allclose(scaled.weights["w"], expected, rtol=1e-6)
    assert scaled.weights["b"].tolist() == [7.0, 8.0]
    again = C.random_signed_constant(TICKET, 0, DENSE, rescale=True)
    np.testing.assert_allclose(np.abs(again.weights["w"]), np.abs(expected), rtol=1e-6)


def test_random_signs_are_the_layers_own_at_random_positions():
    draws = [np.sign(w(C.random_signed_constant(DENSE, seed, DENSE))) for seed in range(60)]
    assert all(np.sort(d).tolist() == [-1, -1, 1, 1] for d in draws)
    assert len({tuple(d) for d in draws}) == 6
    assert np.abs(w(C.random_signed_constant(TICKET, 1, DENSE))).tolist() == [
        SIGMA,
        0,
        SIGMA,
        SIGMA,
    ]


def test_noise_has_the_layers_spread_times_the_scale():
    rng = np.random.default_rng(0)
    values = {p: rng.normal(0, s, 20_000).astype(np.float32) for p, s in (("a", 1), ("b", 0.01))}
    dense = kl.Ticket({p: np.ones(20_000, bool) for p in values}, values)
    ticket = kl.Ticket({p: v > 0 for p, v in values.items()}, values)
    for scale in (0.5, 3):
        control = C.noise(ticket, 1, scale, dense)
        for path, sigma in (("a", 1), ("b", 0.01)):
            added = (control.weights[path] - ticket.weights[path])[ticket.masks[path]]
            assert abs(added.std() / (sigma * scale) - 1) < 0.05
            assert abs(added.mean()) < 0.05 * sigma * scale


def test_noise_of_scale_zero_changes_nothing():
    assert w(C.noise(TICKET, 0, 0, DENSE)) == w(TICKET)


def test_noise_of_one_seed_grows_in_proportion_to_the_scale():
    one, two = (np.array(w(C.noise(TICKET, 4, s, DENSE))) - w(TICKET) for s in (1.0, 2.0))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-5, atol=1e-6)
    assert one[1] == 0 and np.all(one[[0, 2, 3]] != 0)


@pytest.mark.parametrize("scale", [-1, np.nan, np.inf])
def test_noise_of_an_impossible_scale_is_told(scale):
    with pytest.raises(ValueError, match=r"`scale`.*from 0. Received"):
        C.noise(TICKET, 0, scale, DENSE)


@pytest.mark.parametrize("name", CONTROLS)
def test_nothing_else_of_the_ticket_changes(name):
    control = CONTROLS[name](TICKET, 0, DENSE)
    assert same(control.masks, TICKET.masks)
    assert list(control.weights) == ["w", "b"]
    assert control.weights["b"].tolist() == [7.0, 8.0]
    assert control.weights["w"].dtype == np.float32 and control.weights["w"][1] == 0
    assert w(TICKET) == [-3.0, 0.0, 1.0, 3.0] and TICKET.metadata == {"round": 3}
    assert w(DENSE) == [-3.0, -1.0, 1.0, 3.0]


@pytest.mark.parametrize("name", CONTROLS)
def test_values_depend_on_the_seed_alone(name):
    model = mlp()
    ticket, dense = of(model), dense_of(model)
    one, again, other = (CONTROLS[name](ticket, seed, dense) for seed in (1, 1, 2))
    assert same(one.weights, again.weights)
    assert same(one.weights, other.weights) == (name == "signed_constant")
    backwards = kl.Ticket(dict(reversed(ticket.masks.items())), ticket.weights)
    assert same(CONTROLS[name](backwards, 1, dense).weights, one.weights)


@pytest.mark.parametrize("name", CONTROLS)
def test_empty_layers_single_weights_and_half_precision_are_no_trouble(name):
    import ml_dtypes

    values = {"a": np.ones((2, 2)), "b": np.ones(1), "c": np.array([1, -2, 3, 4])}
    values = {p: v.astype(ml_dtypes.bfloat16) for p, v in values.items()}
    full = {p: np.ones(v.shape, bool) for p, v in values.items()}
    ticket = kl.Ticket({**full, "a": np.zeros((2, 2), bool)}, values)
    control = CONTROLS[name](ticket, 0, kl.Ticket(full, values))
    assert not control.weights["a"].any()
    assert all(v.dtype == ml_dtypes.bfloat16 for v in control.weights.values())
    assert np.isfinite(control.weights["c"].astype(float)).all()


@pytest.mark.parametrize("name", ["signed_constant", "random_signed_constant", "noise"])
def test_the_dense_ticket_must_be_dense_and_of_the_same_search(name):
    with pytest.raises(ValueError, match=r"`dense`.*round 0.*75"):
        CONTROLS[name](TICKET, 0, TICKET)
    with pytest.raises(ValueError, match=r"`dense`.*same search.*\(4,\)"):
        CONTROLS[name](TICKET, 0, kl.Ticket({"w": np.ones(3, bool)}, {"w": np.ones(3)}))


FLOATS = st.floats(0.125, 8, width=32) | st.floats(-8, -0.125, width=32)


@given(st.lists(st.tuples(FLOATS, st.booleans()), min_size=1, max_size=30), st.integers(0, 99))
def test_signs_stay_wherever_a_control_promises_it(pairs, seed):
    values, alive = zip(*pairs, strict=True)
    ticket, dense = four(values, alive), four(values, [True] * len(values))
    own = ticket.weights["w"]
    shuffled = C.signed_reshuffle(ticket, seed).weights["w"]
    assert np.array_equal(np.sign(shuffled), np.sign(own))
    assert np.array_equal(np.sort(np.abs(shuffled)), np.sort(np.abs(own)))
    sigma = np.float32(np.std(values, dtype=np.float64))
    assert w(C.signed_constant(ticket, dense)) == (sigma * np.sign(own)).tolist()


# What every control leaves behind ---------------------------------------------------------


def made(name, model):
    """The control of a name, with all that it may take."""
    known = {"ticket": of(model, metadata={"round": 3}), "model": model, "seed": 11}
    known |= {"dense": dense_of(model), "trained": dense_of(model), "scale": 0.5}
    control = {**C.NAMED, **C.FREEZING}[name]
    return control(**{k: v for k, v in known.items() if k in inspect.signature(control).parameters})


@pytest.mark.parametrize("name", C.NAMED)
def test_every_control_says_in_the_metadata_what_it_is(name):
    about = made(name, mlp()).metadata
    assert about["round"] == 3
    assert about["control"]["name"] == name
    seeded = "seed" in inspect.signature(C.NAMED[name]).parameters
    assert about["control"].get("seed") == (11 if seeded else None)
    options = {"rescale", "replace", "counts", "scale"}
    taken = options & set(inspect.signature(C.NAMED[name]).parameters)
    assert set(about["control"]) - {"name", "seed"} == taken
    assert json.loads(json.dumps(about)) == about


@pytest.mark.parametrize("name", C.NAMED)
def test_every_control_is_saved_loaded_and_applied_like_any_ticket(name, tmp_path):
    model = mlp()
    control = made(name, model)
    control.save(tmp_path / "control")
    handle = kl.Ticket.load(tmp_path / "control").apply(model)
    assert same(handle.masks, control.masks)
    assert control.density == of(model).density
    assert np.array_equal(model.get_layer("a").kernel.numpy(), control.weights["a/kernel"])


@pytest.mark.parametrize("name", [*C.NAMED, *C.FREEZING])
def test_every_control_has_a_docstring_with_source_and_example(name):
    doc = inspect.getdoc(getattr(C, name))
    assert all(part in doc for part in ("Args:", "Source: ", "Example:", ">>> "))
