"""Controls of other initial weights: re-drawn from the model's own initializers."""

import keras
import numpy as np
import pytest
from keras import layers as L
from some_tickets import chain, dense_of, mlp, of, same, zero_where_pruned

import keras_lottery as kl


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


def test_rescaling_multiplies_masked_layers_by_their_size_over_their_survivors():
    model = mlp()
    ticket = of(model)
    plain = kl.controls.reinitialize(ticket, model, 4)
    scaled = kl.controls.reinitialize(ticket, model, 4, rescale=True)
    for path, value in plain.weights.items():
        mask = ticket.masks.get(path, np.ones(1, bool))
        np.testing.assert_allclose(scaled.weights[path], value * mask.size / mask.sum(), rtol=1e-6)
    assert scaled.metadata["control"] == {"name": "reinitialize", "seed": 4, "rescale": True}


# Signs kept, magnitudes re-drawn ----------------------------------------------------------


@pytest.mark.parametrize("name", ["sequential", "lstm", "conv", "attention", "half"])
def test_kept_signs_go_with_the_magnitudes_of_a_reinitialization(name):
    model = MODELS[name]()
    ticket = of(model)
    control = kl.controls.keep_signs(ticket, model, 3)
    fresh = kl.controls.reinitialize(ticket, model, 3)
    assert same(control.masks, ticket.masks)
    for path, value in control.weights.items():
        if path in ticket.masks:
            assert np.array_equal(np.abs(value), np.abs(fresh.weights[path]))
            assert np.array_equal(np.sign(value), np.sign(ticket.weights[path]))
            assert value.dtype == ticket.weights[path].dtype
            assert not np.array_equal(value, ticket.weights[path])
        else:
            assert np.array_equal(value, ticket.weights[path])


def test_kept_signs_leave_biases_and_statistics_as_the_ticket_has_them():
    model = mlp()
    ticket = of(model)
    ticket.weights["a/bias"][:] = 5
    ticket.weights["norm/moving_mean"][:] = 6
    control = kl.controls.keep_signs(ticket, model, 0)
    assert (control.weights["a/bias"] == 5).all()
    assert (control.weights["norm/moving_mean"] == 6).all()


def test_a_survivor_of_zero_has_no_sign_to_keep():
    model = mlp()
    ticket = dense_of(model)
    ticket.weights["a/kernel"][0, 0] = 0
    assert kl.controls.keep_signs(ticket, model, 0).weights["a/kernel"][0, 0] == 0


def test_kept_signs_depend_on_the_seed_and_may_be_rescaled():
    model = mlp()
    ticket = of(model)
    one, again, other = (kl.controls.keep_signs(ticket, model, seed) for seed in (1, 1, 2))
    assert same(one.weights, again.weights) and not same(one.weights, other.weights)
    scaled = kl.controls.keep_signs(ticket, mlp, 1, rescale=True)
    kernel, mask = scaled.weights["a/kernel"], ticket.masks["a/kernel"]
    built = kl.controls.keep_signs(ticket, mlp, 1).weights["a/kernel"]
    np.testing.assert_allclose(kernel, built * mask.size / mask.sum(), rtol=1e-6)
    assert scaled.metadata["control"] == {"name": "keep_signs", "seed": 1, "rescale": True}


def test_signs_of_another_architecture_are_told():
    with pytest.raises(ValueError, match="another architecture"):
        kl.controls.keep_signs(of(mlp()), chain((8,), L.Dense(21), L.Dense(10)), 0)
