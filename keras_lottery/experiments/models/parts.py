"""What the networks share: the check of their input, convolution and norm, the classifier."""

from typing import Any

import keras
from keras import layers

SMALLEST = 8


def check_images(model: str, input_shape: tuple[int, ...], smallest: int = SMALLEST) -> None:
    """Raises unless `input_shape` is `(height, width, channels)`, large enough.

    Args:
        model: Its name, for the message.
        input_shape: As the builder received it, without the batch.
        smallest: The least height and width, in pixels.

    Raises:
        ValueError: For any other shape.

    Example:

    >>> check_images("vit", (8, 8, 1))
    """
    shape = tuple(input_shape)
    whole = len(shape) == 3 and all(isinstance(n, int) and n > 0 for n in shape)
    if not whole or min(shape[:2]) < smallest:
        raise ValueError(
            f"{model} is for images: `input_shape` must be (height, width, channels) with height "
            f"and width of at least {smallest} pixels. Received: {shape}. Resize the images, or "
            "take lenet_300_100, which works for data of any shape."
        )


def conv_norm(
    x: Any, filters: int, size: int, init: str, name: str, strides: int = 1, relu: bool = True
) -> Any:
    """A SAME convolution without bias, BatchNorm (momentum 0.9, epsilon 1e-5) and ReLU.

    Args:
        x: Keras tensor of shape `(batch, height, width, channels)`.
        filters: Number of output channels.
        size: Height and width of the kernel.
        init: Name of the kernel's initializer. A name, not an initializer: one object would
            give equal layers equal weights.
        name: Of the convolution; the others are called `<name>_norm` and `<name>_relu`.
        strides: Default 1.
        relu: Whether a ReLU follows. Default yes.

    Returns:
        Keras tensor of shape `(batch, ceil(height / strides), ceil(width / strides), filters)`.

    Example:

    >>> conv_norm(keras.Input((9, 9, 3)), 4, 3, "he_normal", "conv1", strides=2).shape
    (None, 5, 5, 4)
    """
    x = layers.Conv2D(
        filters, size, strides, "same", use_bias=False, kernel_initializer=init, name=name
    )(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def averaged(name: str, inputs: Any, x: Any, classes: int, init: str) -> keras.Model:
    """The model from `inputs` to `x`, its mean over the image, and a dense layer of logits.

    Args:
        name: Of the model.
        inputs: The `keras.Input`.
        x: Keras tensor of shape `(batch, height, width, channels)`.
        classes: Number of logits.
        init: Name of the dense kernel's initializer.

    Example:

    >>> x = keras.Input((8, 8, 3))
    >>> averaged("mean", x, x, 10, "he_normal").count_params()
    40
    """
    x = layers.GlobalAveragePooling2D(name="average")(x)
    x = layers.Dense(classes, kernel_initializer=init, name="logits")(x)
    return keras.Model(inputs, x, name=name)
