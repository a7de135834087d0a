"""Wraps tf_keras models by tfmot with a schedule that leaves pruning to the lottery."""

import warnings
from typing import Any

from keras_lottery.tfmot.importing import load
from keras_lottery.tfmot.views import is_wrapper, wrappers


def never() -> Any:
    """tfmot's schedule that prunes in no step, since tfmot counts steps from 1.

    Example:

    >>> bool(never()(1)[0])
    False
    """
    return load().tfmot.sparsity.keras.ConstantSparsity(0.0, begin_step=0, end_step=0)


def wrap(model: Any) -> Any:
    """Wraps each layer that has weights tfmot can prune; `LotteryCallback` chooses the masks.

    As `tfmot.sparsity.keras.prune_low_magnitude(model)`, except that no schedule prunes
    while a round trains, that layers without prunable weights stay as they are, and that a
    layer which tfmot cannot prune is skipped with a warning in place of an error. Layers
    wrapped before are taken over: their schedule, block size and m-by-n pattern end.

    Args:
        model: A built Sequential or Functional tf_keras model.

    Returns:
        A new, not compiled model that shares the layers and weights of `model`.

    Raises:
        ValueError: If the model is of Keras 3, not built, subclassed or holds a subclassed
            model, or nothing of it can be wrapped.

    Example:

    >>> _, keras = load()
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="out")])
    >>> [layer.name for layer in wrap(model).layers]
    ['prune_low_magnitude_out']
    """
    check_tf_keras(model)
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built: its input shape is unknown. Add a "
            "`tf_keras.Input` or call `model.build(input_shape)` before it is wrapped."
        )

    _check_graph(model)
    result = _wrapped(model, {})
    if not wrappers(result):
        raise ValueError(
            f"tfmot can prune no layer of the model {model.name!r}. Received the layers: "
            f"{[layer.name for layer in model.layers]}"
        )
    return result


def check_tf_keras(model: Any) -> None:
    """Raises a `ValueError` unless `model` is one of tf_keras (Keras 2)."""
    if not isinstance(model, load().keras.Model):
        raise ValueError(
            "Expected a model of tf_keras (Keras 2), which tfmot works on. Received: "
            f"{type(model).__name__} {getattr(model, 'name', '')!r} of "
            f"{type(model).__module__.partition('.')[0]}. For a model of Keras 3 there is "
            "`kl.LotteryCallback`."
        )


def check_schedules(model: Any) -> None:
    """Raises a `ValueError` if a wrapper of `model` prunes by itself."""
    for wrapper in wrappers(model):
        schedule = _config(wrapper.pruning_schedule)
        if schedule != never().get_config() or wrapper.sparsity_m_by_n:
            raise ValueError(
                f"The wrapper {wrapper.name!r} prunes by itself, in the middle of a round, where "
                "the lottery chooses the masks between rounds. Received: the schedule "
                f"{schedule} and sparsity_m_by_n={wrapper.sparsity_m_by_n}. Wrap by "
                "`kl.tfmot.wrap(model)`, which takes wrapped models too; a schedule that is to "
                "drive the rounds goes to `prune_fraction=`, a pattern to `scope=`."
            )


def _config(schedule: Any) -> Any:
    return schedule.get_config() if hasattr(schedule, "get_config") else repr(schedule)


def _check_graph(model: Any) -> None:
    """Raises for a subclassed model, at any depth: tf_keras cannot clone it layer by layer."""
    if not isinstance(model, load().keras.Sequential) and not model.outputs:
        raise ValueError(
            f"The model {model.name!r} is a subclassed one ({type(model).__name__}), whose layers "
            "cannot be exchanged from outside. Wrap them where it makes them: "
            "`self.dense = tfmot.sparsity.keras.prune_low_magnitude(layer, never())`, `never` from "
            "`keras_lottery.tfmot.wrapping`; or make the model functional."
        )
    for layer in model.layers:
        if isinstance(layer, load().keras.Model):
            _check_graph(layer)


def _wrapped(model: Any, made: dict[int, Any]) -> Any:
    """A clone over wrapped layers; a layer that is met again, in an inner model, is one."""

    def wrapped(layer: Any) -> Any:
        if id(layer) not in made:
            inner = isinstance(layer, load().keras.Model)
            made[id(layer)] = _wrapped(layer, made) if inner else _wrapped_layer(layer)
        return made[id(layer)]

    return load().keras.models.clone_model(model, clone_function=wrapped)


def _wrapped_layer(layer: Any) -> Any:
    if is_wrapper(layer):
        _take_over(layer)
        return layer
    if all(v.shape.rank < 2 for v in layer.trainable_weights):
        return layer
    try:
        wrapper = load().tfmot.sparsity.keras.prune_low_magnitude(layer, never())
        if wrapper.layer.get_prunable_weights():
            return wrapper
    except ValueError:
        pass
    warnings.warn(
        f"tfmot cannot prune the layer {layer.name!r} of class {type(layer).__name__}: it stays "
        "dense, and its weights count in no density.",
        stacklevel=4,
    )
    return layer


def _take_over(wrapper: Any) -> None:
    wrapper.pruning_schedule = never()
    wrapper.sparsity_m_by_n = None
    wrapper.block_size = (1, 1)
    if wrapper.pruning_obj is not None:
        wrapper.pruning_obj = type(wrapper.pruning_obj)(
            training_step_fn=lambda: wrapper.pruning_step,
            pruning_vars=wrapper.pruning_vars,
            pruning_schedule=wrapper.pruning_schedule,
            block_size=wrapper.block_size,
            block_pooling_type=wrapper.block_pooling_type,
        )
