"""The Keras side of the searches: a model that trains scores and leaves its weights alone.

The whole network is wrapped at once, by a `Masked` whose masks are learned. So masks are
chosen once a step for all layers together (a global scope is no special case, a shared layer
has one mask), and no layer has to know of it: the network runs as it is, with effective
weights in the place of its own. Scores, thresholds and steps are plain Keras variables, so
that compiled steps, mixed precision, `MirroredStrategy` and saving need nothing of their own.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_lottery import weights
from keras_lottery.compaction.tracing import is_graph
from keras_lottery.masks import Array, Masks, Path
from keras_lottery.strong.drawing import fans
from keras_lottery.strong.rules import Now, Rule, register
from keras_lottery.strong.scores import START
from keras_lottery.tickets import Ticket
from keras_lottery.versions import versions
from keras_lottery.wrappers import Masked


@register
class LearnedMask(Masked):
    """A `Masked` around a whole network whose masks come from trained scores.

    Once built, nothing of the network is trainable; statistics of a BatchNormalization
    still move. Its mask variables say what may be alive; `masks` is what is.

    Args:
        layer: A built Keras model.
        rule: A `Rule`: how masks and effective weights follow from scores.
        filters: Which weights get scores, as in `LotteryCallback`.

    Example:

    >>> from keras_lottery.strong.rules import EdgePopup
    >>> inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> layer = LearnedMask(inner, EdgePopup(density=0.25))
    >>> layer.build()
    >>> [int(mask.sum()) for mask in layer.masks.values()]
    [2]
    """

    def __init__(self, layer: keras.Model, rule: Rule, filters: Any = None, **kwargs: Any):
        super().__init__(layer, filters, **kwargs)
        self.rule = rule

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        self._fans = fans(self.layer, dict(self._targets))
        self._scores = [
            self._score(i, tuple(v.shape), fan_in)
            for i, ((_, v), fan_in) in enumerate(zip(self._targets, self._fans, strict=True))
        ]
        self._starts = self.add_weight(
            name="starts", shape=(len(self._targets), 2), dtype="int64", trainable=False,
            initializer=lambda shape, dtype: keras.ops.broadcast_to(
                keras.ops.convert_to_tensor(START, dtype), shape
            ),
        )  # fmt: skip
        self._step = self.add_weight(
            name="step", shape=(), dtype="int64", initializer="zeros", trainable=False
        )
        for variable in self.layer.trainable_variables:
            variable.trainable = False

    def _score(self, index: int, shape: tuple[int, ...], fan_in: int) -> keras.Variable:
        """Full precision under every dtype policy; drawn by the rule's seed."""
        rng = np.random.default_rng([self.rule.seed, index])
        return self.add_weight(
            name=f"scores_{index}", shape=shape, dtype="float32", autocast=False,
            initializer=lambda shape, dtype: keras.ops.convert_to_tensor(
                self.rule.initial_scores(tuple(shape), fan_in, rng), dtype
            ),
            constraint=self.rule.constraint(),
        )  # fmt: skip

    @property  # type: ignore[misc]  # they are learned, so that there is no setter
    def masks(self) -> Masks:
        """Dict of path to bool array, True = alive: what the network computes with now."""
        chosen, _ = self.rule.masks(self._now(training=False))
        return {p: np.asarray(m) for (p, _), m in zip(self._targets, chosen, strict=True)}

    @property
    def scores(self) -> dict[Path, Array]:
        """Dict of path to the float32 array of scores."""
        return {p: s.numpy() for (p, _), s in zip(self._targets, self._scores, strict=True)}

    @property
    def effective_weights(self) -> dict[Path, Array]:
        """Dict of path to the float32 array that the network computes with now."""
        now = self._now(training=False)
        masks, _ = self.rule.masks(now)
        values = self._weights(now, masks)
        return {p: np.asarray(w) for (p, _), w in zip(self._targets, values, strict=True)}

    def call(self, inputs: Any, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        now = self._now(bool(training))
        masks, starts = self.rule.masks(now)
        if now.training:
            now = self._advance(now, masks, starts)
        penalty = self.rule.penalty(now)
        if penalty is not None:
            self.add_loss(penalty)
        frozen = [v for _, v in self._targets]
        replaced = list(zip(frozen, self._weights(now, masks), strict=True))
        with keras.StatelessScope(state_mapping=replaced, collect_losses=True) as scope:
            outputs = self.layer(inputs, *args, **kwargs)
        self._take_over(scope, {id(v) for v in frozen})
        return outputs

    def _take_over(self, scope: keras.StatelessScope, frozen: set[int]) -> None:
        """What the network added or updated in a call: losses, statistics, seeds."""
        for loss in scope.losses or []:
            self.add_loss(loss)
        for variable in self.layer.non_trainable_variables:
            value = scope.get_current_value(variable)
            if value is not None and id(variable) not in frozen:
                variable.assign(value)

    def _weights(self, now: Now, masks: list[Any]) -> list[Any]:
        return [
            self.rule.weight(now, i, weight, mask)
            for i, (weight, mask) in enumerate(zip(now.weights, masks, strict=True))
        ]

    def _now(self, training: bool) -> Now:
        return Now(
            step=_read(self._step),
            training=training,
            scores=[_read(s) for s in self._scores],
            weights=[tf.cast(_read(v), tf.float32) for _, v in self._targets],
            active=[_read(m) for m in self._mask_variables],
            starts=_read(self._starts),
            fans=self._fans,
        )

    def _advance(self, now: Now, masks: list[Any], starts: Any) -> Now:
        """Writes what a training step changes besides the scores."""
        weights_now, active = self.rule.redraw(now, masks), self.rule.freeze(now)
        self._starts.assign(starts)
        self._step.assign(now.step + 1)
        if weights_now is not now.weights:
            for (_, variable), value in zip(self._targets, weights_now, strict=True):
                variable.assign(keras.ops.cast(value, variable.dtype))
        if active is not now.active:
            for variable, value in zip(self._mask_variables, active, strict=True):
                variable.assign(value)
        return now._replace(weights=weights_now)

    def get_config(self) -> dict[str, Any]:
        rule = keras.saving.serialize_keras_object(self.rule)
        return {**super().get_config(), "rule": rule}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "LearnedMask":
        config = dict(config)
        for name in ("layer", "rule"):
            config[name] = keras.saving.deserialize_keras_object(
                config[name], custom_objects=custom_objects
            )
        return cls(**config)


def _read(variable: keras.Variable) -> Any:
    """The value as a tensor; `convert_to_tensor` of Keras may give TensorFlow's variable."""
    return tf.convert_to_tensor(keras.ops.convert_to_tensor(variable))


def _symbolic_input(graph: keras.Model) -> Any:
    """Tensors without values, in the structure that the graph takes."""
    given = graph.inputs[0] if isinstance(graph, keras.Sequential) else graph.input
    return keras.tree.map_structure(
        lambda tensor: keras.KerasTensor(tensor.shape, dtype=tensor.dtype, name=tensor.name), given
    )


@register
class StrongSearch(keras.Model):
    """A model that searches a strong ticket of its network: `fit` trains scores alone.

    Made by `edge_popup`, `supermask`, `biprop`, `iterand` and `gem_miner`. Compile, fit,
    evaluate and save it like any Keras model; loading needs `import keras_lottery.strong`.
    `ticket` gives the result.

    Args:
        learner: A `LearnedMask` around a built model.

    Attributes:
        network: The frozen network, a plain Keras model.

    Example:

    >>> from keras_lottery.strong.rules import EdgePopup
    >>> inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> search = StrongSearch(LearnedMask(inner, EdgePopup()))
    >>> [v.name for v in search.trainable_variables]
    ['scores_0']
    """

    def __init__(self, learner: LearnedMask, **kwargs: Any):
        super().__init__(**kwargs)
        self.learner = learner
        if is_graph(learner.layer):  # built and called so that `summary` and `export` know shapes
            given = _symbolic_input(learner.layer)
            self.build(keras.tree.map_structure(lambda tensor: tensor.shape, given))
            self(given)
        elif learner.layer.built:
            self.build()

    @property
    def network(self) -> keras.Model:
        """The frozen network; its own weights are all of them, pruned ones included."""
        return self.learner.layer

    def build(self, input_shape: Any = None) -> None:
        if not self.learner.built:
            self.learner.build()
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.learner(inputs, training=training)

    def get_config(self) -> dict[str, Any]:
        learner = keras.saving.serialize_keras_object(self.learner)
        return {**super().get_config(), "learner": learner}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "StrongSearch":
        config = dict(config)
        config["learner"] = keras.saving.deserialize_keras_object(
            config["learner"], custom_objects=custom_objects
        )
        return cls(**config)

    def build_from_config(self, config: Any) -> None:
        if not self.built:
            self.build()


def ticket(search: StrongSearch, metadata: Mapping[str, Any] | None = None) -> Ticket:
    """The strong ticket that a search has found so far, for its original architecture.

    Args:
        search: A model made by `edge_popup` or another search of this module, or loaded.
        metadata: JSON-like dict, added to the ticket's own.

    Returns:
        A `kl.Ticket` like any other: its weights are those that the network computes with,
        so that the original model under the ticket gives the outputs of the search.

    Raises:
        ValueError: If the model is not a search.

    Example:

    >>> from keras_lottery.strong.searches import edge_popup
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> found = ticket(edge_popup(model, density=0.25))
    >>> found.density
    0.25
    >>> _ = found.apply(model)
    """
    if not isinstance(search, StrongSearch):
        raise ValueError(
            "`ticket` reads a model that `edge_popup` or another search of `kl.strong` made. "
            f"Received: {search!r}"
        )
    learner = search.learner
    values = weights.read(weights.all_weights(search.network))
    for path, value in learner.effective_weights.items():
        values[path] = value.astype(values[path].dtype)
    about = {"method": type(learner.rule).__name__, **learner.rule.get_config()}
    own = {"strong": about, "steps": int(learner._step.numpy()), "versions": versions()}
    return Ticket(learner.masks, values, {**own, **(metadata or {})})
