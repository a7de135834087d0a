"""Random functional models with dead and constant units, for properties of every model."""

import keras
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers as L

ACTS = ["relu", "relu", "sigmoid", "tanh", "gelu", "softplus", "elu", "leaky_relu", None, "softmax"]


class Grower:
    """Adds random layers to a pool of tensors; `pick` chooses one of a list."""

    def __init__(self, pick):
        self.pick, self.pool, self.shared = pick, [], []

    def start(self):
        if self.pick([1, 0, 0, 0, 0]):
            words = keras.Input((6,), dtype="int32")
            self.pool = [L.Embedding(9, 5)(words)]
            return [words]
        shape = self.pick([(6, 6, 4), (6, 4), (5,), (6, 6, 3), (7, 6)])
        inputs = [keras.Input(shape) for _ in range(self.pick([1, 1, 2]))]
        self.pool = list(inputs)
        return inputs

    def act(self):
        return self.pick(ACTS)

    def tensor(self):
        return self.pick([*self.pool[-3:], *self.pool[-1:] * 3])

    def step(self):
        x = self.tensor()
        rank = len(x.shape) - 1
        kinds = {1: self.flat, 2: self.sequence, 3: self.image}[rank]()
        y = self.pick(self.pick([kinds, kinds, self.anywhere()]))(x)
        if 0 < np.prod(y.shape[1:]) <= 1000:
            self.pool.append(y)

    # kinds of steps --------------------------------------------------------------------

    def anywhere(self):
        return [self.plain, self.merge, self.merge, self.nested, self.called_twice]

    def flat(self):
        return [self.dense, self.dense, self.plain, self.reshape, self.repeated]

    def sequence(self):
        return (
            [self.conv] * 4
            + [self.plain, self.dense, self.pooled, self.flatten]
            + [self.attention] * 2
        )

    def image(self):
        return [self.conv] * 5 + [self.plain, self.pooled, self.flatten]

    def dense(self, x):
        return L.Dense(self.pick([3, 4, 6]), self.act(), use_bias=self.pick([True, True, False]))(x)

    def plain(self, x):
        return self.pick([
            lambda: L.BatchNormalization(), lambda: L.BatchNormalization(scale=False),
            lambda: L.BatchNormalization(center=False), lambda: L.ReLU(max_value=3.0),
            lambda: L.LeakyReLU(0.2), lambda: L.PReLU(), lambda: L.Activation("sigmoid"),
            lambda: L.Dropout(0.5), lambda: L.GaussianNoise(1.0), lambda: L.LayerNormalization(),
        ])()(x)  # fmt: skip

    def like(self, x):
        """A tensor of the shape of x: another one, or made from x."""
        same = [y for y in self.pool if y.shape == x.shape]
        return self.pick([*same, L.Dense(x.shape[-1], self.act())(x)])

    def merge(self, x):
        y = self.like(x)
        if self.pick([True, False]):
            return self.pick([
                lambda: x + y, lambda: x * y, lambda: x - y, lambda: keras.ops.relu(x),
                lambda: L.Concatenate()([x, y]), lambda: L.Concatenate(axis=1)([x, y]),
            ])()  # fmt: skip
        kind = self.pick([L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum])
        return kind()([x, y])

    def nested(self, x):
        inside = keras.Input(x.shape[1:])
        y = L.Dense(5, self.act())(inside)
        y = self.pick(
            [lambda: y, lambda: L.BatchNormalization()(y), lambda: L.Add()([y, L.Dense(5)(inside)])]
        )()
        model = keras.Model(inside, L.Dense(self.pick([3, 4]), self.act())(y))
        return self.twice(model, x)

    def called_twice(self, x):
        layer = self.pick([lambda: L.Dense(4, self.act()), L.BatchNormalization, L.ReLU])()
        return self.twice(layer, x)

    def twice(self, layer, x):
        if self.pick([True, False]):
            return layer(x)
        return self.pick([L.Add, L.Concatenate])()([layer(x), layer(self.like(x))])

    def conv(self, x):
        d, c = len(x.shape) - 2, x.shape[-1]
        kind = self.pick(["", "", "Transpose", "Separable", "Depthwise", "groups"])
        size = self.pick([1, 2, 3]) if x.shape[1] >= 3 and (d == 1 or x.shape[2] >= 3) else 1
        options = {
            "kernel_size": size,
            "padding": self.pick(["valid", "same"]),
            "activation": self.act(),
            "use_bias": self.pick([True, True, False]),
            "strides": self.pick([1, 1, 2]),
        }
        if kind == "Depthwise":
            return getattr(L, f"DepthwiseConv{d}D")(depth_multiplier=self.pick([1, 2]), **options)(
                x
            )
        if kind == "Separable":
            options["depth_multiplier"] = self.pick([1, 2])
            return getattr(L, f"SeparableConv{d}D")(4, **options)(x)
        if kind == "groups" and c % 2 == 0:
            options |= {"groups": self.pick([2, c]), "strides": 1}
            return getattr(L, f"Conv{d}D")(2 * c, **options)(x)
        if kind == "groups":
            kind = ""
        return getattr(L, f"Conv{d}D{kind}")(self.pick([3, 4, 6]), **options)(x)

    def pooled(self, x):
        d = len(x.shape) - 2
        small = min(x.shape[1:-1]) < 3
        padding = "same" if small else self.pick(["valid", "same"])
        kinds = {
            f"MaxPooling{d}D": {"pool_size": 2, "padding": padding},
            f"AveragePooling{d}D": {"pool_size": 2, "strides": 1, "padding": padding},
            f"UpSampling{d}D": {"size": 2},
            f"ZeroPadding{d}D": {"padding": 1},
            f"Cropping{d}D": {"cropping": 0 if small else 1},
            f"GlobalAveragePooling{d}D": {"keepdims": self.pick([True, False])},
            f"GlobalMaxPooling{d}D": {},
        }
        name = self.pick(list(kinds))
        return getattr(L, name)(**kinds[name])(x)

    def attention(self, x):
        y = self.pick([t for t in self.pool if len(t.shape) == 3])
        layer = L.MultiHeadAttention(
            self.pick([1, 2, 3]), self.pick([1, 3]), value_dim=self.pick([None, 2]),
            use_bias=self.pick([True, False]),
        )  # fmt: skip
        return layer(x, y, use_causal_mask=self.pick([False, True]))

    def repeated(self, x):
        return L.RepeatVector(3)(x)

    def flatten(self, x):
        return L.Flatten()(x)

    def reshape(self, x):
        n = x.shape[-1]
        return L.Reshape(self.pick([(n, 1), (1, n), (-1, 2 if n % 2 == 0 else 1), (1, 1, n)]))(x)


def grow(pick, steps):
    """A model of some random layers; what nothing reads is an output."""
    grower = Grower(pick)
    inputs = grower.start()
    for _ in range(steps):
        grower.step()
    last = grower.pool[-1]
    outputs = [L.Dense(3, pick([None, "softmax", "sigmoid"]))(last)]
    if pick([True, False]):
        outputs.append(L.Dense(2)(grower.tensor()))
    return keras.Model(
        inputs if len(inputs) > 1 else inputs[0], outputs if len(outputs) > 1 else outputs[0]
    )


def kill(model, rng):
    """Random weights with dead rows and columns, dead and constant channels."""
    for v in model.weights:
        shape = tuple(v.shape)
        if v.path.endswith("variance"):
            v.assign(rng.uniform(0.5, 2, shape))
            continue
        a = rng.normal(size=shape)
        if len(shape) >= 2 and v.name != "bias":
            a *= np.sqrt(2 / max(1, np.prod(shape[:-1]) ** 0.5))
            a[..., rng.random(shape[-1]) < rng.choice([0.2, 0.5])] = 0
            a[..., rng.random(shape[-2]) < rng.choice([0.2, 0.5]), :] = 0
            if len(shape) == 3:
                a[:, rng.random(shape[1]) < 0.2] = 0
                a[rng.random(shape[0]) < 0.2] = 0
            a *= rng.random(shape) < rng.choice([0.3, 1.0])
        else:
            a *= rng.random(shape) < rng.choice([0, 0.6, 1.0])
        v.assign(a.astype("float32"))


def inputs_of(model, rng):
    """A batch, each input of another magnitude."""
    arrays = []
    for tensor in model.inputs:
        shape = (3, *tensor.shape[1:])
        numbers = rng.normal(size=shape) * 10.0 ** rng.integers(-2, 3)
        arrays.append(
            rng.integers(0, 9, shape) if "int" in tensor.dtype else numbers.astype("float32")
        )
    return arrays[0] if len(arrays) == 1 else arrays


def for_random_models(check, examples=300):
    """Calls `check(model, x)` on as many random models, the same ones each time."""

    @settings(
        max_examples=examples, derandomize=True, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data(), st.integers(3, 9), st.integers(0, 2**32 - 1))
    def run(data, steps, seed):
        keras.utils.clear_session(free_memory=False)
        rng = np.random.default_rng(seed)
        model = grow(lambda choices: data.draw(st.sampled_from(choices)), steps)
        kill(model, rng)
        check(model, inputs_of(model, rng))

    run()
