"""Controls of other positions: the counts of the ticket, other masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers as L
from some_tickets import chain, dense_of, four, mlp, of, same, w, zero_where_pruned

import keras_lottery as kl
from keras_lottery import masks as mask_ops

DRAWS = {
    "random_mask": lambda t, s, **k: kl.controls.random_mask(t, s, **k),
    "random_mask_global": lambda t, s, **k: kl.controls.random_mask(t, s, counts="global", **k),
    "shuffle_mask": lambda t, s, **k: kl.controls.shuffle_mask(t, s, **k),
}


# Masks of other positions -----------------------------------------------------------------


@pytest.mark.parametrize("with_dense", [False, True])
@pytest.mark.parametrize("name", DRAWS)
def test_counts_stay_masks_move_and_pruned_weights_are_zero(name, with_dense):
    model = mlp()
    ticket, dense = of(model), dense_of(model)
    control = DRAWS[name](ticket, 1, **({"dense": dense} if with_dense else {}))
    counts, expected = mask_ops.counts(control.masks), mask_ops.counts(ticket.masks)
    if name == "random_mask_global":
        assert counts != expected
        assert control.density == ticket.density
    else:
        assert counts == expected
    assert list(control.masks) == list(ticket.masks)
    assert list(control.weights) == list(ticket.weights)
    assert all(not np.array_equal(control.masks[p], ticket.masks[p]) for p in ticket.masks)
    assert zero_where_pruned(control)
    for path, mask in control.masks.items():
        if with_dense:
            assert np.array_equal(control.weights[path], np.where(mask, dense.weights[path], 0))
        else:
            assert np.isin(control.weights[path][mask], ticket.weights[path]).all()
            assert control.weights[path][mask].all()
    for path in set(ticket.weights) - set(ticket.masks):
        assert np.array_equal(control.weights[path], ticket.weights[path])


@pytest.mark.parametrize("name", DRAWS)
def test_positions_depend_on_the_seed_alone(name):
    ticket = of(mlp())
    one, again, other = (DRAWS[name](ticket, seed) for seed in (5, 5, 6))
    assert same(one.masks, again.masks) and same(one.weights, again.weights)
    assert not same(one.masks, other.masks)
    backwards = kl.Ticket(dict(reversed(ticket.masks.items())), ticket.weights)
    assert same(
        dict(sorted(DRAWS[name](backwards, 5).masks.items())), dict(sorted(one.masks.items()))
    )


@pytest.mark.parametrize("name", DRAWS)
def test_the_ticket_itself_stays_as_it_is(name):
    ticket = of(mlp(), metadata={"round": 2})
    masks = {p: m.copy() for p, m in ticket.masks.items()}
    values = {p: v.copy() for p, v in ticket.weights.items()}
    DRAWS[name](ticket, 0)
    assert same(ticket.masks, masks) and same(ticket.weights, values)
    assert ticket.metadata == {"round": 2}


@pytest.mark.parametrize("name", ["random_mask", "shuffle_mask"])
def test_without_a_dense_ticket_the_own_values_move(name):
    ticket = of(mlp())
    control = DRAWS[name](ticket, 3)
    for path in ticket.masks:
        assert np.array_equal(
            np.sort(control.weights[path], None), np.sort(ticket.weights[path], None)
        )


@pytest.mark.parametrize("name", DRAWS)
def test_empty_and_full_layers_are_no_trouble(name):
    rng = np.random.default_rng(0)
    values = {p: rng.normal(size=(4, 5)).astype(np.float32) for p in "abc"}
    masks = {
        "a": np.zeros((4, 5), bool),
        "b": np.ones((4, 5), bool),
        "c": np.arange(20).reshape(4, 5) < 3,
    }
    control = DRAWS[name](kl.Ticket(masks, values), 0)
    assert mask_ops.density(control.masks) == 23 / 60
    assert zero_where_pruned(control)
    if name != "random_mask_global":
        assert not control.masks["a"].any() and control.masks["b"].all()


def test_every_position_is_as_likely_as_every_other():
    ticket = kl.Ticket({"w": np.arange(10) < 3}, {"w": np.ones(10, np.float32)})
    for draw in DRAWS.values():
        hits = sum(draw(ticket, seed).masks["w"].astype(int) for seed in range(400))
        assert hits.sum() == 1200
        assert hits.min() > 80 and hits.max() < 160  # 120 on average, 9 standard deviation


@pytest.mark.parametrize("name", DRAWS)
def test_the_dense_ticket_must_be_dense_and_of_the_same_search(name):
    ticket = of(mlp())
    with pytest.raises(ValueError, match=r"`dense`.*round 0.*Received.*%"):
        DRAWS[name](ticket, 0, dense=ticket)
    with pytest.raises(ValueError, match=r"`dense`.*same search"):
        DRAWS[name](ticket, 0, dense=dense_of(chain((8,), L.Dense(20, name="z"))))
    wider = chain((8,), L.Dense(21, name="a"), L.Dense(10, name="b"))
    with pytest.raises(ValueError, match="shape"):
        DRAWS[name](ticket, 0, dense=dense_of(wider))


def test_unknown_counts_are_told():
    with pytest.raises(ValueError, match=r'"layerwise", "global" or "even".*each'):
        kl.controls.random_mask(of(mlp()), 0, counts="each")


# The same density in each layer -----------------------------------------------------------


def layers_of(alive, sizes):
    """A dense ticket and one with so many alive in each of the layers a, b, c, ..."""
    masks = {p: np.arange(n) < k for p, n, k in zip("abcdef", sizes, alive, strict=False)}
    values = {p: np.arange(1, m.size + 1, dtype=np.float32) for p, m in masks.items()}
    return kl.Ticket(masks, values), kl.Ticket({p: m | True for p, m in masks.items()}, values)


def alive_of(ticket):
    return [alive for alive, _ in mask_ops.counts(ticket.masks).values()]


def test_even_counts_give_each_layer_the_same_density():
    ticket, dense = layers_of((8, 0), (10, 6))
    control = kl.controls.random_mask(ticket, 0, dense, counts="even")
    assert alive_of(control) == [5, 3]


def test_even_counts_give_what_rounding_leaves_to_the_largest_remainders():
    # 5 of 11 weights: exact shares 5*5/11 = 2.27, 5*4/11 = 1.82, 5*2/11 = .91
    ticket, dense = layers_of((5, 0, 0), (5, 4, 2))
    assert alive_of(kl.controls.random_mask(ticket, 0, dense, counts="even")) == [2, 2, 1]


def test_even_counts_of_equal_remainders_go_to_the_earlier_path():
    ticket, dense = layers_of((0, 1, 0), (3, 3, 3))
    assert alive_of(kl.controls.random_mask(ticket, 0, dense, counts="even")) == [1, 0, 0]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=6))
def test_even_counts_are_exact_in_total_and_off_by_less_than_one_in_a_layer(pairs):
    ticket, dense = layers_of([min(p) for p in pairs], [max(p) for p in pairs])
    control = kl.controls.random_mask(ticket, 0, dense, counts="even")
    assert sum(alive_of(control)) == sum(alive_of(ticket))
    for alive, size in mask_ops.counts(control.masks).values():
        assert alive <= size and abs(alive - ticket.density * size) < 1


# Positions by magnitude -------------------------------------------------------------------

DENSE = four([1.0, -2.0, 3.0, -4.0])
TRAINED = four([8.0, -1.0, 0.5, -6.0])
BY_MAGNITUDE = {
    "invert_scores": lambda t, d, f, **k: kl.controls.invert_scores(t, d, f, **k),
    "one_shot": lambda t, d, f, **k: kl.controls.one_shot(t, d, f, **k),
    "prune_at_init_magnitude": lambda t, d, f, **k: kl.controls.prune_at_init_magnitude(t, d, **k),
}


@pytest.mark.parametrize(
    "name, expected",
    [
        ("invert_scores", [0.0, -2.0, 3.0, 0.0]),
        ("one_shot", [1.0, 0.0, 0.0, -4.0]),
        ("prune_at_init_magnitude", [0.0, 0.0, 3.0, -4.0]),
    ],
)
def test_positions_by_magnitude_by_hand(name, expected):
    ticket = four([1.0, -2.0, 3.0, -4.0], (1, 1, 0, 0))
    control = BY_MAGNITUDE[name](ticket, DENSE, TRAINED)
    assert w(control) == expected
    assert control.masks["w"].tolist() == [value != 0 for value in expected]
    assert control.weights["b"].tolist() == [7.0, 8.0]
    assert control.metadata["round"] == 3 and control.metadata["control"]["name"] == name
    assert w(ticket) == [1.0, -2.0, 0.0, 0.0] and "control" not in ticket.metadata


def test_unmasked_weights_are_the_tickets_not_the_trained_ones():
    trained = kl.Ticket(TRAINED.masks, {**TRAINED.weights, "b": np.ones(2, np.float32)})
    control = kl.controls.one_shot(four([1.0, -2.0, 3.0, -4.0], (1, 0, 0, 0)), DENSE, trained)
    assert w(control) == [1.0, 0.0, 0.0, 0.0]
    assert control.weights["b"].tolist() == [7.0, 8.0]


@pytest.mark.parametrize("name", ["one_shot", "prune_at_init_magnitude"])
def test_positions_by_magnitude_compete_inside_layers_or_across_them(name):
    ticket, dense = layers_of((2, 1), (3, 4))  # values 1, 2, 3 and 1, 2, 3, 4
    control = BY_MAGNITUDE[name]
    assert alive_of(control(ticket, dense, dense)) == [2, 1]
    assert alive_of(control(ticket, dense, dense, counts="global")) == [1, 2]
    assert alive_of(control(ticket, dense, dense, counts="even")) == [1, 2]
    assert control(ticket, dense, dense, counts="global").metadata["control"]["counts"] == "global"
    with pytest.raises(ValueError, match=r"`counts`.*'each'"):
        control(ticket, dense, dense, counts="each")


@pytest.mark.parametrize("name", BY_MAGNITUDE)
def test_of_equal_magnitudes_the_earlier_position_survives(name):
    dense = four([2.0, -2.0, 2.0, -2.0])
    control = BY_MAGNITUDE[name](four([2.0, -2.0, 2.0, -2.0], (0, 0, 1, 0)), dense, dense)
    assert w(control) == [2.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", BY_MAGNITUDE)
def test_positions_by_magnitude_keep_the_counts_of_a_real_model(name):
    model = mlp()
    dense, ticket = dense_of(model), of(model)
    model.set_weights(
        [v + np.random.default_rng(1).normal(size=v.shape) for v in model.get_weights()]
    )
    control = BY_MAGNITUDE[name](ticket, dense, dense_of(model))
    assert mask_ops.counts(control.masks) == mask_ops.counts(ticket.masks)
    for path, mask in control.masks.items():
        assert np.array_equal(control.weights[path], np.where(mask, dense.weights[path], 0))


def test_inverted_and_one_shot_masks_share_as_little_as_they_can():
    ticket = four([1.0, -2.0, 3.0, -4.0], (1, 1, 0, 0))
    low, high = (BY_MAGNITUDE[n](ticket, DENSE, TRAINED) for n in ("invert_scores", "one_shot"))
    assert mask_ops.overlap(low.masks, high.masks) == 0


@pytest.mark.parametrize("name", ["invert_scores", "one_shot"])
def test_the_trained_ticket_must_be_dense_finite_and_of_the_same_search(name):
    ticket = four([1.0, -2.0, 3.0, -4.0], (1, 1, 0, 0))
    with pytest.raises(ValueError, match=r"`trained`.*dense ticket.*50"):
        BY_MAGNITUDE[name](ticket, DENSE, ticket)
    with pytest.raises(ValueError, match=r"`trained`.*same search.*\(4,\).*\(1,\)"):
        BY_MAGNITUDE[name](ticket, DENSE, layers_of((1,), (1,))[1])
    with pytest.raises(ValueError, match=r"NaN or Inf.*'w'"):
        BY_MAGNITUDE[name](ticket, DENSE, four([1.0, np.nan, 3.0, 4.0]))
