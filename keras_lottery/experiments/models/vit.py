"""A small vision transformer."""

from typing import Any

import keras
from keras import layers

from keras_lottery.experiments.models.parts import check_images

_WIDTH, _DEPTH, _HEADS, _HIDDEN, _GRID = 128, 6, 4, 256, 8


def vit(input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """A vision transformer of 6 blocks of width 128, with 4 heads and 256 hidden units each.

    Patches have ceil(side / 8) pixels, so that there are at most 8 a side: 49 of 4x4 for
    28x28 images, 64 for 8x8, 32x32 and 224x224 ones. Learned positions; LayerNorm before
    attention, before the GELU layers and at the end; mean over the patches; logits; no class
    token, no dropout. 810,890 parameters on CIFAR-10, 793,856 of them prunable (not the
    positions). Truncated normal initialization of deviation 0.02.

    Args:
        input_shape: `(height, width, channels)`, at least 8 pixels high and wide. An edge
            that the patches do not fit is padded with zeros.
        classes: Number of logits.

    Returns:
        The built model.

    Raises:
        ValueError: If the shape is not one of images, or they are too small.

    Source: Dosovitskiy et al., 2010.11929; the mean in place of a class token: Beyer et al.,
    2205.01580.

    Example:

    >>> vit((32, 32, 3), 10).count_params()
    810890
    """
    check_images("vit", input_shape)
    inputs = keras.Input(input_shape)
    patch = tuple(-(-side // _GRID) for side in input_shape[:2])
    x = layers.Conv2D(
        _WIDTH, patch, patch, "same", kernel_initializer=_init(), name="patches"
    )(inputs)  # fmt: skip
    x = layers.Reshape((x.shape[1] * x.shape[2], _WIDTH), name="tokens")(x)
    x = PositionEmbedding(name="positions")(x)
    for i in range(_DEPTH):
        x = _attend(x, f"block{i + 1}")
        x = _think(x, f"block{i + 1}")
    x = _norm("norm")(x)
    x = layers.GlobalAveragePooling1D(name="average")(x)
    x = layers.Dense(classes, kernel_initializer=_init(), name="logits")(x)
    return keras.Model(inputs, x, name="vit")


@keras.saving.register_keras_serializable(package="keras_lottery")
class PositionEmbedding(layers.Layer):
    """Adds a learned vector to each position; like other embeddings it is not pruned.

    Input and output: `(batch, positions, width)`. Loading a model that holds it needs
    `import keras_lottery.experiments.models`.

    Args:
        position_initializer: Of the vectors. Default: truncated normal of deviation 0.02.

    Source: Dosovitskiy et al., 2010.11929.

    Example:

    >>> PositionEmbedding("ones")(keras.ops.zeros((1, 2, 3))).numpy().tolist()
    [[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]]
    """

    def __init__(self, position_initializer: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.position_initializer = keras.initializers.get(position_initializer or _init())

    def build(self, input_shape: Any) -> None:
        self.position = self.add_weight(
            shape=tuple(input_shape[1:]), initializer=self.position_initializer, name="position"
        )

    def call(self, x: Any) -> Any:
        return x + self.position

    def get_config(self) -> dict[str, Any]:
        initializer = keras.initializers.serialize(self.position_initializer)
        return {**super().get_config(), "position_initializer": initializer}


def _init() -> keras.initializers.Initializer:
    """A new one for each layer: one object would give equal layers equal weights."""
    return keras.initializers.TruncatedNormal(stddev=0.02)


def _norm(name: str) -> layers.Layer:
    return layers.LayerNormalization(epsilon=1e-6, name=name)


def _attend(x: Any, name: str) -> Any:
    """Self-attention of the normalized tokens, added to them."""
    y = _norm(f"{name}_norm1")(x)
    y = layers.MultiHeadAttention(
        _HEADS, _WIDTH // _HEADS, kernel_initializer=_init(), name=f"{name}_attention"
    )(y, y)
    return layers.Add(name=f"{name}_add1")([x, y])


def _think(x: Any, name: str) -> Any:
    """Two dense layers on each normalized token, added to it."""
    y = _norm(f"{name}_norm2")(x)
    y = layers.Dense(_HIDDEN, "gelu", kernel_initializer=_init(), name=f"{name}_dense1")(y)
    y = layers.Dense(_WIDTH, kernel_initializer=_init(), name=f"{name}_dense2")(y)
    return layers.Add(name=f"{name}_add2")([x, y])
