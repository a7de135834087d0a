"""prune_round and Search: where a round's masks come from, what a search remembers."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L

import keras_lottery as kl
from keras_lottery import criteria
from keras_lottery.search import Search, check_finite, prune_round
from keras_lottery.settings import Settings


def state(trained, initial=None, masks=None, **options):
    trained = {p: np.array(w, "float32") for p, w in trained.items()}
    initial = (
        trained if initial is None else {p: np.array(w, "float32") for p, w in initial.items()}
    )
    masks = masks or {p: np.ones(w.shape, bool) for p, w in trained.items()}
    return criteria.State(trained, initial, {p: np.array(m) for p, m in masks.items()}, **options)


def lists(masks):
    return {p: m.tolist() for p, m in masks.items()}


def model_of(kernel, bias=(0.0,)):
    """One Dense layer whose kernel holds the given numbers."""
    model = keras.Sequential([keras.Input((len(kernel),)), L.Dense(1, name="out")])
    model.set_weights([np.array(kernel, "float32").reshape(-1, 1), np.array(bias, "float32")])
    return model


def kernel(model):
    return model.get_weights()[0].ravel().tolist()


# prune_round ------------------------------------------------------------------------------


def test_the_smallest_magnitudes_go():
    masks = prune_round(state({"w": [4.0, -1.0, 3.0, -5.0]}), Settings(0.5), round=1)
    assert lists(masks) == {"w": [True, False, False, True]}


def test_layers_compete_globally_by_default_and_alone_layerwise():
    trained = {"a": [9.0, 8.0, 7.0, 6.0], "b": [1.0, 2.0, 3.0, 10.0]}
    masks = prune_round(state(trained), Settings(0.5), round=1)
    assert lists(masks) == {"a": [True, True, True, False], "b": [False, False, False, True]}
    masks = prune_round(state(trained), Settings(0.5, scope="layerwise"), round=1)
    assert lists(masks) == {"a": [True, True, False, False], "b": [False, False, True, True]}


def test_a_fraction_is_of_the_survivors_and_a_density_of_all():
    alive = {"w": [True, True, True, True, False, False, False, False]}
    weights = {"w": [4.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0]}
    masks = prune_round(state(weights, masks=alive), Settings(0.25), round=2)
    assert int(masks["w"].sum()) == 3
    masks = prune_round(state(weights, masks=alive), Settings([1.0, 0.5, 0.25]), round=2)
    assert int(masks["w"].sum()) == 2


def test_criteria_see_the_weights_of_the_rewind_point():
    before, after = {"w": [5.0, 0.0, 1.0, 2.0]}, {"w": [5.5, 3.0, 3.0, 2.1]}
    masks = prune_round(state(after, before), Settings(0.5, criterion="movement"), round=1)
    assert lists(masks) == {"w": [False, True, True, False]}
    masks = prune_round(state(after, before), Settings(0.5, criterion="large_init"), round=1)
    assert lists(masks) == {"w": [True, False, False, True]}


def test_a_step_schedule_is_asked_at_the_step():
    class Half:
        def __call__(self, step):
            return step == 7, 0.5

        def get_config(self):
            return {}

    weights = {"w": [1.0, 2.0, 3.0, 4.0]}
    assert prune_round(state(weights), Settings(Half()), 1, step=6)["w"].all()
    assert lists(prune_round(state(weights), Settings(Half()), 1, step=7)) == {
        "w": [False, False, True, True]
    }


def test_nothing_is_written_while_masks_are_found():
    given_state = state({"w": [4.0, -1.0, 3.0, -5.0]})
    prune_round(given_state, Settings(0.5), round=1)
    assert given_state.weights["w"].tolist() == [4.0, -1.0, 3.0, -5.0]
    assert given_state.masks["w"].all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_or_scores_that_are_not_finite_are_refused_by_path(bad):
    with pytest.raises(kl.NotFiniteError, match=r"NaN or Inf in the .* of \['v'\]"):
        prune_round(state({"w": [1.0, 2.0], "v": [bad, 1.0]}), Settings(0.5), round=1)
    broken = Settings(0.5, criterion=lambda s: {"w": np.array([1.0, bad])})
    with pytest.raises(kl.NotFiniteError, match=r"NaN or Inf in the scores of \['w'\]"):
        prune_round(state({"w": [1.0, 2.0]}), broken, round=1)


def test_integers_and_bools_are_always_finite():
    check_finite({"steps": np.array([1, 2]), "mask": np.array([True]), "w": np.zeros(2)}, "weights")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(2, 9), min_size=1, max_size=3),
    st.floats(0.05, 0.95),
    st.integers(0, 10**6),
    st.booleans(),
)
def test_rounds_are_nested_exact_and_independent_of_the_dicts_order(sizes, fraction, seed, tied):
    rng = np.random.default_rng(seed)
    scope = kl.scopes.Global(min_layer_density=0.0)
    weights = {f"w{i}": np.round(rng.normal(size=n), 0 if tied else 9) for i, n in enumerate(sizes)}
    masks, alive = None, sum(sizes)
    for r in range(1, 4):
        outer = masks
        masks = prune_round(state(weights, masks=masks), Settings(fraction, scope=scope), round=r)
        alive -= round(fraction * alive)
        assert sum(int(m.sum()) for m in masks.values()) == alive
        assert outer is None or not any((masks[p] & ~outer[p]).any() for p in masks)
        turned = {p: weights[p] for p in reversed(weights)}
        again = prune_round(state(turned, masks=outer), Settings(fraction, scope=scope), round=r)
        assert lists(again) == lists(masks)


# Settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rewind": "init"}, r"rewind.*'weights', 'learning_rate', 'none'.*'init'"),
        ({"rewind_steps": -1}, r"rewind_steps.*at least 0.*-1"),
        ({"rewind_steps": 2, "rewind": "none"}, r"rewind_steps.*2.*'none'"),
        ({"rewind_steps": True}, r"rewind_steps.*integer.*True"),
        ({"rewind_steps": None}, r"rewind_steps.*integer.*None"),
        ({"scope": "local"}, r"scope.*'erk', 'global', 'layerwise'.*'local'"),
        ({"criterion": "size"}, r"criterion.*'gradient'.*'magnitude'.*'size'"),
        ({"criterion": "gradient"}, r"gradient.*no data was given"),
        ({"prune_fraction": 1.2}, r"prune_fraction.*between 0 and 1.*1\.2"),
        ({"prune_fraction": None}, r"prune_fraction.*None"),
        ({"prune_fraction": [0.5, 0.25]}, r"starting with 1\.0.*0\.5"),
        ({"prune_fraction": [1.0, 0.5, 0.75]}, r"not grow.*0\.75.*round 2"),
    ],
)
def test_bad_settings_are_refused_with_what_was_expected_and_received(options, message):
    with pytest.raises(ValueError, match=message):
        Settings(**options)


def test_settings_describe_themselves_as_plain_values():
    import json

    told = Settings(0.3, "learning_rate", 5, "erk", "movement", seed=4).describe()
    assert json.loads(json.dumps(told)) == told
    assert (told["rewind"], told["rewind_steps"], told["seed"]) == ("learning_rate", 5, 4)
    assert (told["criterion"], told["scope"]) == ("movement", "ERK()")
    assert "0.3" in told["schedule"]


# Search -----------------------------------------------------------------------------------


def trained(search, values, bias=0.0):
    """The round ends with these weights."""
    search.model.set_weights(
        [np.array(values, "float32").reshape(-1, 1), np.array([bias], "float32")]
    )
    return search.finish_round({"loss": 1.0}, best_epoch=0, steps=4, seconds=0.5)


def test_a_search_by_hand_prunes_rewinds_and_remembers():
    model = model_of([1.0, 2.0, 3.0, 4.0], [0.5])
    search = Search(model, Settings(0.5), n_rounds=3)
    assert (search.round, search.density, search.rounds) == (0, 1.0, [])
    done = trained(search, [8.0, 7.0, -1.0, 9.0], bias=3.0)
    assert (done.index, done.density, done.steps, done.seconds) == (0, 1.0, 4, 0.5)
    assert kernel(model) == [8.0, 7.0, -1.0, 9.0]  # nothing is pruned at a round's end
    search.next_round()
    assert (search.round, search.density) == (1, 0.5)
    assert kernel(model) == [1.0, 0.0, 0.0, 4.0]
    assert model.get_weights()[1].tolist() == [0.5]
    trained(search, [2.0, 0.0, 0.0, -1.0])
    search.next_round()
    assert kernel(model) == [1.0, 0.0, 0.0, 0.0]
    trained(search, [5.0, 0.0, 0.0, 0.0])
    assert [r.density for r in search.rounds] == [1.0, 0.5, 0.25]
    path = next(iter(search.masks))
    assert search.rounds[2].layer_density == {path: 0.25}
    alive = [search.ticket(r).weights[path].ravel().tolist() for r in range(3)]
    assert alive == [[1.0, 2.0, 3.0, 4.0], [1.0, 0.0, 0.0, 4.0], [1.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("rewind", ["none", "learning_rate"])
def test_without_rewinding_weights_the_trained_ones_go_on_and_are_the_ticket(rewind):
    model = model_of([1.0, 2.0, 3.0, 4.0], [0.5])
    search = Search(model, Settings(0.5, rewind), n_rounds=2)
    trained(search, [8.0, 7.0, -1.0, 9.0], bias=3.0)
    search.next_round()
    assert kernel(model) == [8.0, 0.0, 0.0, 9.0]
    trained(search, [1.0, 0.0, 0.0, 1.0], bias=4.0)
    tickets = [[w.ravel().tolist() for w in search.ticket(r).weights.values()] for r in (0, 1)]
    assert tickets == [[[1.0, 2.0, 3.0, 4.0], [0.5]], [[8.0, 0.0, 0.0, 9.0], [3.0]]]


def test_a_search_starts_from_the_masks_that_the_model_carries():
    model = model_of([1.0, 2.0, 3.0, 4.0])
    path = model.layers[0].kernel.path
    kl.enforce(model, {path: np.array([[True], [True], [False], [True]])})
    search = Search(model, Settings(1 / 3), n_rounds=2)
    assert search.density == 0.75
    trained(search, [3.0, 1.0, 0.0, 2.0])
    search.next_round()
    assert search.masks[path].ravel().tolist() == [True, False, False, True]
    assert search.ticket(0).masks[path].ravel().tolist() == [True, True, False, True]


def test_a_ticket_does_not_change_when_the_search_goes_on():
    model = model_of([1.0, 2.0, 3.0, 4.0])
    search = Search(model, Settings(0.5), n_rounds=2)
    trained(search, [8.0, 7.0, -1.0, 9.0])
    ticket = search.ticket()
    before = {p: w.copy() for p, w in ticket.weights.items()}
    search.next_round()
    trained(search, [0.0, 0.0, 0.0, 0.0])
    assert ticket.density == 1.0
    for path, value in before.items():
        np.testing.assert_array_equal(ticket.weights[path], value)


def test_masks_in_hand_are_not_the_searchs_own():
    search = Search(model_of([1.0, 2.0, 3.0, 4.0]), Settings(0.5), n_rounds=2)
    trained(search, [1.0, 2.0, 3.0, 4.0])
    next(iter(search.ticket().masks.values()))[:] = False
    next(iter(search.ticket().weights.values()))[:] = 7.0
    assert search.ticket().density == 1.0
    assert next(iter(search.ticket().weights.values())).ravel().tolist() == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("round", [2, -3, 99])
def test_a_ticket_of_no_finished_round_is_an_error(round):
    search = Search(model_of([1.0, 2.0, 3.0, 4.0]), Settings(0.5), n_rounds=3)
    with pytest.raises(ValueError, match="no round has finished"):
        search.ticket()
    trained(search, [1.0, 2.0, 3.0, 4.0])
    search.next_round()
    assert search.ticket().density == 1.0  # round 1 has not finished yet
    trained(search, [0.0, 0.0, 3.0, 4.0])
    with pytest.raises(ValueError, match=rf"round from 0 to 1\. Received: {round}"):
        search.ticket(round)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_round_that_ends_in_nan_sets_the_model_back_to_the_last_good_one(bad):
    model = model_of([1.0, 2.0, 3.0, 4.0])
    search = Search(model, Settings(0.5), n_rounds=3)
    trained(search, [8.0, 7.0, -1.0, 9.0], bias=3.0)
    search.next_round()
    with pytest.raises(kl.SearchStoppedError, match=r"weights of .*kernel.*round 1.*kept round 0"):
        trained(search, [bad, 0.0, 0.0, 1.0])
    assert kernel(model) == [8.0, 7.0, -1.0, 9.0]
    assert model.get_weights()[1].tolist() == [3.0]
    assert [r.index for r in search.rounds] == [0]
    assert search.stopped is not None and "kept round 0" in search.stopped
    assert search.ticket().density == search.density == kl.density(model) == 1.0


def test_a_first_round_that_ends_in_nan_sets_the_model_back_to_the_start():
    model = model_of([1.0, 2.0, 3.0, 4.0], [0.5])
    search = Search(model, Settings(0.5), n_rounds=3)
    with pytest.raises(kl.SearchStoppedError, match=r"round 0.*kept the start"):
        trained(search, [np.nan, 0.0, 0.0, 1.0])
    assert kernel(model) == [1.0, 2.0, 3.0, 4.0]
    assert search.rounds == []


def test_a_bias_that_is_not_finite_counts_too():
    model = model_of([1.0, 2.0, 3.0, 4.0])
    search = Search(model, Settings(0.5), n_rounds=3)
    with pytest.raises(kl.SearchStoppedError, match=r"bias"):
        trained(search, [1.0, 2.0, 3.0, 4.0], bias=np.nan)


def test_a_score_that_is_infinite_only_where_already_pruned_is_no_error():
    def logarithm(state):
        with np.errstate(divide="ignore"):
            return {p: np.log(np.abs(w)) for p, w in state.weights.items()}

    model = model_of([1.0, 2.0, 3.0, 4.0])
    search = Search(model, Settings(0.5, criterion=logarithm), n_rounds=3)
    trained(search, [8.0, 7.0, -1.0, 9.0])
    search.next_round()
    trained(search, [2.0, 0.0, 0.0, 9.0])
    search.next_round()
    assert kernel(model) == [0.0, 0.0, 0.0, 4.0]


def test_metadata_tells_where_a_ticket_came_from():
    search = Search(model_of([1.0, 2.0, 3.0, 4.0]), Settings(0.5, seed=3), n_rounds=2)
    trained(search, [8.0, 7.0, -1.0, 9.0])
    search.next_round()
    trained(search, [8.0, 0.0, 0.0, 9.0])
    told = search.ticket().metadata
    assert told["round"] == 1 and told["density"] == 0.5 and told["densities"] == [1.0, 0.5]
    assert told["metrics"] == {"loss": 1.0} and told["seed"] == 3
    assert told["criterion"] == "magnitude" and told["rewind"] == "weights"
    assert {"keras", "tensorflow", "keras_lottery"} <= set(told["versions"])


def test_a_scope_that_cannot_go_on_stops_the_search_and_keeps_its_rounds():
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(1, use_bias=False), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    x = np.ones((4, 3), "float32")
    lottery = kl.LotteryCallback(1, 0.5, verbose=0)
    with (
        pytest.warns(RuntimeWarning, match="1 weights are to survive.*kept round 1"),
    ):
        history = model.fit(x, x[:, 0], epochs=5, verbose=0, callbacks=[lottery])
    assert [r.index for r in lottery.rounds] == [0, 1]
    assert history.history["round"][:2] == [0, 1]
    assert kl.density(model) == lottery.ticket().density == lottery.rounds[1].density
