"""A signal that passes a model: positive wherever a path of weights leads, and what rules share.

Each rule stands for a layer by a function that never turns negative: a number of its result
is positive where a path from a positive input leads, and so is the derivative by a weight that
lies on such a path. Activations, biases and what else bends or shifts numbers are left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_lottery.compaction.rules import is_elementwise, needs
from keras_lottery.compaction.tracing import Call, Key

ops = keras.ops


@dataclass(frozen=True)
class Signal:
    """One call of a layer, met by a signal.

    Attributes:
        call: The call.
        tensors: Dict of key to the signal in each tensor so far, a batch of one example.
        weight: Variable -> its signal, 1 where alive.
    """

    call: Call
    tensors: dict[Key, Any]
    weight: Callable[[keras.Variable], Any]

    @property
    def layer(self) -> Any:
        """The layer that is called."""
        return self.call.layer

    @property
    def inputs(self) -> list[Any]:
        """The signals that go in."""
        return [self.tensors[key] for key in self.call.inputs]

    @property
    def x(self) -> Any:
        """The only signal that goes in."""
        needs(len(self.call.inputs) == 1, "it has several inputs")
        return self.inputs[0]


Rule = Callable[[Signal], Any]


@tf.custom_gradient
def binary(x: Any) -> Any:
    """1 where positive, else 0; forward, and backward for the derivative."""
    return tf.cast(x > 0, x.dtype), lambda dy: tf.cast(dy > 0, dy.dtype)


def spread(x: Any, axes: Any) -> Any:
    """To each number comes what is anywhere along the axes."""
    return x + ops.mean(x, axis=axes, keepdims=True)


def activated(function: Any, y: Any) -> Any:
    """Softmax mixes its axis, a function that is not known everything."""
    if is_elementwise(function):
        return y
    known = function in (keras.activations.softmax, keras.activations.log_softmax)
    return spread(y, -1 if known else None)


def channels_last(function: Callable[[Signal, Any], Any]) -> Rule:
    """A rule of images, made for the channels on the last axis."""

    def rule(signal: Signal) -> Any:
        if getattr(signal.layer, "data_format", "channels_last") == "channels_last":
            return function(signal, signal.x)
        return ops.moveaxis(function(signal, ops.moveaxis(signal.x, 1, -1)), -1, 1)

    return rule


def check_plain(layer: Any) -> None:
    """Refuses kernels that are more than one variable."""
    needs(not getattr(layer, "lora_enabled", False), "it has LoRA weights")
    needs(getattr(layer, "quantization_mode", None) is None, "it is quantized")
