"""Which layers read a flattened image: torch flattens (c, h, w), Keras (h, w, c)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers as L

from keras_lottery import weights
from keras_lottery.compaction import tracing

Shape = tuple[int, ...]
Sides = tuple[Any, ...]  # None: of any size

_CONV_1D = (L.Conv1D, L.DepthwiseConv1D, L.Conv1DTranspose)
_CONV = (*_CONV_1D, L.Conv2D, L.Conv3D, L.DepthwiseConv2D, L.Conv2DTranspose, L.Conv3DTranspose)
_READERS = (L.Dense, L.BatchNormalization, L.LayerNormalization)
_PERMUTES = ("Permute", "Transpose", "Moveaxis", "Swapaxes")
_ORDERS = (
    "torch flattens (channels, height, width), Keras (height, width, channels). Give "
    "`flattened={layer's name: (height, width, channels)}` for the layers that read a flattened "
    "image, or `flattened={}` if there is no such layer."
)


def before(model: keras.Model, given: Mapping[str, Shape] | None) -> dict[int, Shape]:
    """The shape that was flattened before each layer that reads such a tensor.

    Args:
        model: A built Keras 3 model.
        given: Dict of a layer's name to `(height, width, channels)`, which is then taken as
            it is. Default None: the model's graph shows it.

    Returns:
        Dict of a layer's id to shape, without the batch, channels last.

    Raises:
        ValueError: If the graph cannot be seen (a subclassed model, a layer of layers) or does
            not tell in which order a layer reads an image.

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
        raise _unseen(f"model {model.name!r}")
    return {}


def _unseen(what: str) -> ValueError:
    return ValueError(
        f"The graph of the {what} cannot be seen, and a Dense layer may read a flattened image. "
        f"{_ORDERS}"
    )


def _by_name(model: keras.Model, given: Mapping[str, Shape]) -> dict[int, Shape]:
    layers = {layer.name: layer for layer in weights.sublayers(model)}
    unknown = [name for name in given if name not in layers]
    if unknown:
        raise ValueError(
            f"`flattened` names {unknown[0]!r}, which is no layer of the model. Its layers are: "
            f"{list(layers)}"
        )
    return {id(layers[name]): tuple(shape) for name, shape in given.items()}


@dataclass(frozen=True)
class _Seen:
    """What is known of a tensor.

    Attributes:
        row: The shape of the image of which it is one row, or None.
        lost: Name of the layer behind which the order of the entries is not known, or "".
        sequence: Whether it is the pixels of an image by its channels, (h * w, c).
    """

    row: Shape | None = None
    lost: str = ""
    sequence: bool = False


class _Walk:
    """Follows flattened tensors forwards through a graph and those nested in it."""

    def __init__(self, model: keras.Model):
        self.found: dict[int, Shape] = {}
        self._has_conv_1d = any(isinstance(s, _CONV_1D) for s in weights.sublayers(model))
        self._permute = ""
        graph = tracing.trace(model)
        self._data = set(graph.inputs)  # and what is made of them without weights
        self._walk(graph, ())

    def _walk(self, graph: tracing.Graph, given: tuple[_Seen, ...]) -> list[_Seen]:
        """What is known of the outputs; `given` is what is known of the inputs."""
        seen = dict(zip(graph.inputs, given, strict=False))
        for call in graph.calls:
            incoming = [seen.get(key, _Seen()) for key in call.inputs]
            if id(call.layer) in graph.nested:
                outgoing = self._walk(graph.nested[id(call.layer)], tuple(incoming))
            else:
                outgoing = [self._through(graph, call, incoming)] * len(call.outputs)
                if self._data.issuperset(call.inputs) and not _has_weights(call.layer):
                    self._data.update(call.outputs)
            seen.update(zip(call.outputs, outgoing, strict=False))
        return [seen.get(key, _Seen()) for key in graph.outputs]

    def _through(self, graph: tracing.Graph, call: tracing.Call, incoming: list[_Seen]) -> _Seen:
        lost = next((s.lost for s in incoming if s.lost), "")
        if lost and _has_weights(call.layer):
            raise ValueError(
                f"The layer {call.layer.name!r} reads what {lost!r} makes of an image, or makes an "
                f"image of, and in which order cannot be seen. {_ORDERS}"
            )
        if lost or not call.inputs:
            return _Seen(lost=lost)
        if any(s.row is not None for s in incoming):
            return self._behind_row(graph, call, [s.row for s in incoming])
        shapes = [graph.shape(key) for key in call.inputs]
        out = graph.shape(call.outputs[0])
        sequence = any(s.sequence for s in incoming)
        image = any(self._is_image(shape, sequence) for shape in shapes)
        if _hides(call.layer, L.Dense) and (image or _hides(call.layer, (L.Flatten, *_CONV))):
            raise _unseen(f"layer {call.layer.name!r}")
        if _hides(call.layer, (L.Flatten, *_CONV)) and image and len(out) < len(shapes[0]):
            return _Seen(lost=call.layer.name)
        kept = _Seen(sequence=sequence and len(out) == 2)
        if len(call.inputs) > 1 or _has_weights(call.layer):
            return kept
        if type(call.layer).__name__ in _PERMUTES:
            self._permute = call.layer.name
            return kept
        return self._moved(call, shapes[0], out, kept, image) or kept

    def _behind_row(
        self, graph: tracing.Graph, call: tracing.Call, rows: list[Shape | None]
    ) -> _Seen:
        """`call` reads a flattened image."""
        row = next(row for row in rows if row is not None)
        if any(other != row for other in rows):
            raise ValueError(
                f"The layer {call.layer.name!r} joins flattened images with something else, so "
                "the order of the rows behind it is not known. Give `flattened=`, and convert "
                "the layers that read it by hand."
            )
        if isinstance(call.layer, _READERS):
            self.found[id(call.layer)] = row
        elif _has_weights(call.layer):
            raise _unseen(f"layer {call.layer.name!r}")
        if isinstance(call.layer, L.Dense):
            return _Seen()
        out = graph.shape(call.outputs[0])
        if out == graph.shape(call.inputs[0]):
            return _Seen(row)
        return _Seen() if out == row else _Seen(lost=call.layer.name)

    def _moved(
        self, call: tracing.Call, shape: Sides, out: Sides, kept: _Seen, image: bool
    ) -> _Seen | None:
        """What is known behind a call that only moves values; None if it moves none."""
        lost = _Seen(lost=call.layer.name)
        if getattr(call.layer, "data_format", None) == "channels_first":
            shape = (*shape[1:], shape[0])
            image = self._is_image(shape, kept.sequence)
        if image and len(out) == 1:
            if out[0] != _size(shape):
                return None if out[0] in shape else lost
            return _Seen(shape) if not self._permute else _Seen(lost=self._permute)
        if _size(shape) != _size(out) or _sides(shape) == _sides(out):
            return None
        if image:
            return _Seen(sequence=len(out) == 2) if shape[-1] == out[-1] else lost
        return lost if self._is_image(out, False) and call.inputs[0] not in self._data else None

    def _is_image(self, shape: Sides, sequence: bool) -> bool:
        """Whether torch flattens it in another order: several channels, several pixels."""
        *space, channels = shape or (1,)
        known = len(shape) >= 3 or (len(shape) == 2 and (sequence or self._has_conv_1d))
        return known and channels != 1 and any(side != 1 for side in space)


def _has_weights(layer: Any) -> bool:
    return bool(getattr(layer, "weights", ()))


def _hides(layer: Any, kinds: Any) -> bool:
    """Whether a layer of one of `kinds` is inside `layer`, where its calls cannot be seen."""
    inside = weights.sublayers(layer) if isinstance(layer, L.Layer) else ()
    return any(isinstance(sub, kinds) and sub is not layer for sub in inside)


def _size(shape: Sides) -> int | None:
    return None if None in shape else math.prod(side or 0 for side in shape)


def _sides(shape: Sides) -> list[int | None]:
    return [side for side in shape if side != 1]
