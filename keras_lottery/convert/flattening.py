"""Which layers read a flattened image: torch flattens (c, h, w), Keras (h, w, c)."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers as L

from keras_lottery import weights
from keras_lottery.compaction import tracing

Shape = tuple[int, ...]

_CONV_1D = (L.Conv1D, L.DepthwiseConv1D, L.Conv1DTranspose)
_CONV = (*_CONV_1D, L.Conv2D, L.Conv3D, L.DepthwiseConv2D, L.Conv2DTranspose, L.Conv3DTranspose)
_READERS = (L.Dense, L.BatchNormalization, L.LayerNormalization)


def before(model: keras.Model, given: Mapping[str, Shape] | None) -> dict[int, Shape]:
    """The shape that was flattened before each layer that reads such a tensor.

    Args:
        model: A built Keras 3 model.
        given: Dict of a layer's name to `(height, width, channels)`, which is then taken as
            it is. Default None: the model's graph shows it.

    Returns:
        Dict of a layer's id to shape, without the batch, channels last.

    Raises:
        ValueError: If the graph cannot be seen (a subclassed model) or does not tell.

    Example:

    >>> image = keras.Input((4, 4, 3))
    >>> dense = L.Dense(2)
    >>> model = keras.Model(image, dense(L.Flatten()(image)))
    >>> before(model, None)[id(dense)]
    (4, 4, 3)
    """
    if given is not None:
        return _by_name(model, given)
    if tracing.is_graph(model):
        return _Walk(model).found
    kinds = list(weights.sublayers(model))
    flattens = any(isinstance(layer, (L.Flatten, *_CONV)) for layer in kinds)
    if flattens and any(isinstance(layer, L.Dense) for layer in kinds):
        raise ValueError(
            f"The graph of the model {model.name!r} cannot be seen, and a Dense layer may read a "
            "flattened image: torch flattens (channels, height, width), Keras (height, width, "
            "channels). Give `flattened={layer's name: (height, width, channels)}`, or "
            "`flattened={}` if there is no such layer."
        )
    return {}


def _by_name(model: keras.Model, given: Mapping[str, Shape]) -> dict[int, Shape]:
    layers = {layer.name: layer for layer in weights.sublayers(model)}
    unknown = [name for name in given if name not in layers]
    if unknown:
        raise ValueError(
            f"`flattened` names {unknown[0]!r}, which is no layer of the model. Its layers are: "
            f"{list(layers)}"
        )
    return {id(layers[name]): tuple(shape) for name, shape in given.items()}


class _Walk:
    """Follows flattened tensors forwards through a graph and those nested in it."""

    def __init__(self, model: keras.Model):
        self.found: dict[int, Shape] = {}
        self._has_conv_1d = any(isinstance(s, _CONV_1D) for s in weights.sublayers(model))
        self._walk(tracing.trace(model), ())

    def _walk(self, graph: tracing.Graph, given: tuple[Any, ...]) -> list[Any]:
        """Shapes before flattening, or None, of the outputs; `given` are those of the inputs."""
        shapes = dict(zip(graph.inputs, given, strict=False))
        for call in graph.calls:
            incoming = [shapes.get(key) for key in call.inputs]
            if id(call.layer) in graph.nested:
                outgoing = self._walk(graph.nested[id(call.layer)], tuple(incoming))
            else:
                outgoing = [self._through(graph, call, incoming)] * len(call.outputs)
            shapes.update(zip(call.outputs, outgoing, strict=False))
        return [shapes.get(key) for key in graph.outputs]

    def _through(self, graph: tracing.Graph, call: tracing.Call, incoming: list[Any]) -> Any:
        flat = next((shape for shape in incoming if shape is not None), None)
        if flat is None:
            return self._flattened(graph, call)
        if any(shape != flat for shape in incoming):
            raise ValueError(
                f"The layer {call.layer.name!r} joins flattened images with something else, so "
                "the order of the rows behind it is not known. Give `flattened=`, and convert "
                "the layers that read it by hand."
            )
        if isinstance(call.layer, _READERS):
            self.found[id(call.layer)] = flat
        same = graph.shape(call.outputs[0]) == graph.shape(call.inputs[0])
        return flat if same and not isinstance(call.layer, L.Dense) else None

    def _flattened(self, graph: tracing.Graph, call: tracing.Call) -> Shape | None:
        """The input's shape if `call` makes one row of an image."""
        if not call.inputs or not isinstance(call.layer, (L.Flatten, L.Reshape)):
            return None
        shape: tuple[Any, ...] = graph.shape(call.inputs[0])
        if len(graph.shape(call.outputs[0])) != 1 or None in shape:
            return None
        if len(shape) < 2 or (len(shape) == 2 and not self._has_conv_1d):
            return None
        first = getattr(call.layer, "data_format", None) == "channels_first"
        *space, channels = (*shape[1:], shape[0]) if first else shape
        moved = channels != 1 and any(side != 1 for side in space)
        return (*space, channels) if moved else None
