"""Controls: the counts of the ticket, another draw, from the seed alone."""

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_lottery as kl
from keras_lottery import masks as mask_ops
from keras_lottery import weights


def chain(shape, *layers):
    x = y = keras.Input(shape)
    for layer in layers:
        y = layer(y)
    return keras.Model(x, y)


def of(model, density=0.3, metadata=None):
    rng = np.random.default_rng(0)
    masks = {p: rng.random(v.shape) < density for p, v in weights.prunable(model).items()}
    return kl.Ticket.of(model, masks, metadata)


def dense_of(model):
    return of(model, density=2.0)


def mlp():
    return chain(
        (8,),
        L.Dense(20, name="a", bias_initializer="normal"),
        L.BatchNormalization(name="norm"),
        L.Dense(10, name="b"),
    )


def same(a, b):
    return list(a) == list(b) and all(
        a[p].dtype == b[p].dtype and np.array_equal(a[p], b[p]) for p in a
    )


def zero_where_pruned(ticket):
    return all(not ticket.weights[p][~m].any() for p, m in ticket.masks.items())


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
    with pytest.raises(ValueError, match=r'"layerwise" or "global".*each'):
        kl.controls.random_mask(of(mlp()), 0, counts="each")


# Other weights ----------------------------------------------------------------------------


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = [L.Dense(6), L.Dense(6)]
        self.out = L.Dense(2)

    def call(self, x):
        for layer in self.hidden:
            x = layer(x)
        return self.out(x)


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 4), np.float32))
    return model


def attention():
    x = keras.Input((4, 6))
    y = L.LayerNormalization()(L.MultiHeadAttention(2, 3)(x, x))
    return keras.Model(x, L.Dense(2)(y))


MODELS = {
    "sequential": lambda: keras.Sequential([keras.Input((4,)), L.Dense(5), L.Dense(3)]),
    "functional": mlp,
    "subclassed": subclassed,
    "lstm": lambda: chain((5, 3), L.LSTM(4), L.Dense(2)),
    "gru": lambda: chain((5, 3), L.GRU(4), L.Dense(2)),
    "bidirectional": lambda: chain((5, 3), L.Bidirectional(L.LSTM(4)), L.Dense(2)),
    "conv": lambda: chain(
        (6, 6, 2), L.Conv2D(3, 3), L.BatchNormalization(), L.Flatten(), L.Dense(2)
    ),
    "depthwise": lambda: chain((6, 6, 2), L.DepthwiseConv2D(3), L.Conv2DTranspose(3, 3)),
    "separable": lambda: chain((6, 6, 2), L.SeparableConv2D(4, 3)),
    "attention": attention,
    "embedding": lambda: chain((5,), L.Embedding(9, 4), L.Flatten(), L.Dense(2)),
    "seeded": lambda: chain(
        (8,), L.Dense(9, kernel_initializer=keras.initializers.GlorotNormal(seed=3)), L.Dense(2)
    ),
    "half": lambda: chain((8,), L.Dense(9, dtype="bfloat16"), L.Dense(2, dtype="float16")),
}


@pytest.mark.parametrize("name", MODELS)
def test_reinitializing_draws_every_kernel_again_under_the_same_masks(name):
    model = MODELS[name]()
    ticket = of(model)
    before = [v.numpy() for v in model.variables]
    one, again, other = (kl.controls.reinitialize(ticket, model, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, model.variables, strict=True))
    assert same(one.masks, ticket.masks)
    assert same(one.weights, again.weights)
    assert zero_where_pruned(one)
    assert [v.dtype for v in one.weights.values()] == [v.dtype for v in ticket.weights.values()]
    for path, mask in ticket.masks.items():
        assert not np.isin(one.weights[path][mask], ticket.weights[path]).any() or "half" in name
        assert not np.array_equal(one.weights[path], ticket.weights[path])
        assert not np.array_equal(one.weights[path], other.weights[path])


def test_reinitializing_follows_each_initializer():
    model = chain(
        (200,),
        L.Dense(100, "relu", kernel_initializer="he_normal", bias_initializer="ones", name="a"),
        L.Dense(100, kernel_initializer=keras.initializers.RandomUniform(-3, -2), name="b"),
    )
    fresh = kl.controls.reinitialize(dense_of(model), model, 0).weights
    assert abs(fresh["a/kernel"].std() - 0.1) < 0.005
    assert (fresh["a/bias"] == 1).all()
    assert (fresh["b/kernel"] >= -3).all() and (fresh["b/kernel"] <= -2).all()
    assert not fresh["b/bias"].any()


def test_two_layers_of_one_shape_and_seed_get_different_draws():
    same_seed = keras.initializers.GlorotUniform(seed=1)
    model = chain((6,), *[L.Dense(6, kernel_initializer=same_seed, name=n) for n in "ab"])
    fresh = kl.controls.reinitialize(dense_of(model), model, 0).weights
    assert not np.array_equal(fresh["a/kernel"], fresh["b/kernel"])


def test_statistics_go_back_to_the_start():
    model = mlp()
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(32, 8)) + 4, rng.normal(size=(32, 10)), verbose=0)
    fresh = kl.controls.reinitialize(of(model), model, 0).weights
    assert not fresh["norm/moving_mean"].any() and (fresh["norm/moving_variance"] == 1).all()
    assert (fresh["norm/gamma"] == 1).all() and not fresh["norm/beta"].any()


@pytest.mark.parametrize("wrap", [lambda layer: layer, L.Bidirectional])
def test_lstm_forget_gates_start_open(wrap):
    model = chain((5, 3), wrap(L.LSTM(4)))
    fresh = kl.controls.reinitialize(of(model), model, 0).weights
    biases = [v for p, v in fresh.items() if p.endswith("bias")]
    assert biases
    for bias in biases:
        assert bias.tolist() == [0] * 4 + [1] * 4 + [0] * 8


def test_lstm_forget_gates_stay_shut_where_the_layer_says_so():
    model = chain((5, 3), L.LSTM(4, unit_forget_bias=False))
    fresh = kl.controls.reinitialize(of(model), model, 0).weights
    assert not next(v for p, v in fresh.items() if p.endswith("bias")).any()


def test_recurrent_kernels_stay_orthogonal():
    model = chain((5, 3), L.SimpleRNN(6))
    fresh = kl.controls.reinitialize(dense_of(model), model, 0).weights
    kernel = next(v for p, v in fresh.items() if p.endswith("recurrent_kernel"))
    assert np.allclose(kernel @ kernel.T, np.eye(6), atol=1e-5)


class Own(L.Layer):
    def build(self, input_shape):
        self.mixing = self.add_weight(shape=(input_shape[-1], 5), name="mixing")

    def call(self, x):
        return x @ self.mixing


def own():
    return chain((4,), Own(name="own"), L.Dense(2, name="out"))


def test_a_layer_without_an_initializer_names_the_weight_and_the_way_out():
    model = own()
    with pytest.raises(ValueError, match=r"'own/mixing'.*function that builds"):
        kl.controls.reinitialize(of(model), model, 0)


def test_a_function_that_builds_the_model_works_for_every_layer():
    model = own()
    ticket = of(model, density=0.5)
    one, again, other = (kl.controls.reinitialize(ticket, own, seed) for seed in (1, 1, 2))
    assert same(one.weights, again.weights)
    assert not same(one.weights, other.weights)
    assert same(one.masks, ticket.masks)
    assert zero_where_pruned(one)
    for path, mask in ticket.masks.items():
        assert not np.isin(one.weights[path][mask], ticket.weights[path]).any()


def test_the_own_path_names_stay_when_a_function_builds_others():
    ticket = of(MODELS["sequential"]())
    control = kl.controls.reinitialize(ticket, MODELS["sequential"], 0)
    assert list(control.weights) == list(ticket.weights)


@pytest.mark.parametrize("as_function", [False, True])
def test_another_architecture_is_told(as_function):
    def wider():
        return chain((8,), L.Dense(21), L.BatchNormalization(), L.Dense(10))

    with pytest.raises(ValueError, match=r"another architecture.*\(8, 20\).*\(8, 21\)"):
        kl.controls.reinitialize(of(mlp()), wider if as_function else wider(), 0)


# What every control leaves behind ---------------------------------------------------------


def test_every_control_says_in_the_metadata_what_it_is():
    model = mlp()
    ticket = of(model, metadata={"round": 3, "seed": 1})
    for name, draw in kl.controls.NAMED.items():
        arguments = (model, 11) if name == "reinitialize" else (11,)
        control = draw(ticket, *arguments)
        assert control.metadata == {
            "round": 3,
            "seed": 1,
            "control": {"name": name, "seed": 11},
        }


def test_a_control_is_saved_loaded_and_applied_like_any_ticket(tmp_path):
    model = mlp()
    control = kl.controls.random_mask(of(model), 0)
    control.save(tmp_path / "control")
    handle = kl.Ticket.load(tmp_path / "control").apply(model)
    assert same(handle.masks, control.masks)
    assert np.array_equal(model.get_layer("a").kernel.numpy(), control.weights["a/kernel"])
