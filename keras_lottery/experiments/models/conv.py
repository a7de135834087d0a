"""The small convolutional networks: LeNet-5, and Conv-2, 4 and 6 of the lottery paper."""

import keras
from keras import layers

from keras_lottery.experiments.models.parts import check_images

_INIT = "glorot_normal"


def lenet_5(input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """LeNet-5 as in Caffe: 5x5 convolutions of 20 and 50 filters, then 500 units, then logits.

    Both convolutions are VALID (SAME for images of less than 13 pixels, which the second
    would not fit), each followed by a 2x2 max pool. ReLU after each hidden layer; Caffe's own
    has one only after the 500 units. 431,080 parameters on MNIST, 430,500 of them prunable.
    Glorot normal initialization.

    Args:
        input_shape: `(height, width, channels)`, at least 8 pixels high and wide.
        classes: Number of logits.

    Returns:
        The built model.

    Raises:
        ValueError: If the shape is not one of images, or they are too small.

    Source: LeCun et al., 1998, "Gradient-based learning applied to document recognition"; in
    this form in Lee et al., 1810.02340.

    Example:

    >>> lenet_5((28, 28, 1), 10).count_params()
    431080
    """
    check_images("lenet_5", input_shape)
    padding = "valid" if min(input_shape[:2]) >= 13 else "same"
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(20, 5, 1, padding, activation="relu", kernel_initializer=_INIT,
                          name="conv1"),
            layers.MaxPooling2D(padding="same", name="pool1"),
            layers.Conv2D(50, 5, 1, padding, activation="relu", kernel_initializer=_INIT,
                          name="conv2"),
            layers.MaxPooling2D(padding="same", name="pool2"),
            layers.Flatten(name="flatten"),
            layers.Dense(500, "relu", kernel_initializer=_INIT, name="dense1"),
            layers.Dense(classes, kernel_initializer=_INIT, name="logits"),
        ],
        name="lenet_5",
    )  # fmt: skip


def conv_2(input_shape: tuple[int, ...], classes: int, dropout: float = 0.0) -> keras.Model:
    """Conv-2: two 3x3 convolutions of 64 filters, a pool, then 256, 256 units and logits.

    SAME convolutions and 2x2 max pools, ReLU after each hidden layer, Glorot normal
    initialization. 4,301,642 parameters on CIFAR-10, 4,300,992 of them prunable.

    Args:
        input_shape: `(height, width, channels)`, at least 8 pixels high and wide.
        classes: Number of logits.
        dropout: Rate in [0, 1) of a dropout before each of the three dense layers. Default 0:
            none. The paper's is 0.5; it does not say where, and this is the usual place.

    Returns:
        The built model.

    Raises:
        ValueError: If the shape is not one of images, they are too small, or the rate is out
            of range.

    Source: Frankle & Carbin, 1803.03635, figure 2 and section 3.

    Example:

    >>> conv_2((32, 32, 3), 10, dropout=0.5).count_params()
    4301642
    """
    return _conv("conv_2", (64,), input_shape, classes, dropout)


def conv_4(input_shape: tuple[int, ...], classes: int, dropout: float = 0.0) -> keras.Model:
    """Conv-4: Conv-2 with two more convolutions of 128 filters and a pool.

    2,425,930 parameters on CIFAR-10, 2,425,024 of them prunable. The rest is as in `conv_2`.

    Args:
        input_shape: `(height, width, channels)`, at least 8 pixels high and wide.
        classes: Number of logits.
        dropout: Rate in [0, 1) of a dropout before each dense layer. Default 0: none.

    Returns:
        The built model.

    Raises:
        ValueError: As in `conv_2`.

    Source: Frankle & Carbin, 1803.03635, figure 2 and section 3.

    Example:

    >>> conv_4((32, 32, 3), 10).count_params()
    2425930
    """
    return _conv("conv_4", (64, 128), input_shape, classes, dropout)


def conv_6(input_shape: tuple[int, ...], classes: int, dropout: float = 0.0) -> keras.Model:
    """Conv-6: Conv-4 with two more convolutions of 256 filters and a pool.

    2,262,602 parameters on CIFAR-10, 2,261,184 of them prunable: the paper prints 1.7M, which
    its own description of the layers does not give. The rest is as in `conv_2`.

    Args:
        input_shape: `(height, width, channels)`, at least 8 pixels high and wide.
        classes: Number of logits.
        dropout: Rate in [0, 1) of a dropout before each dense layer. Default 0: none.

    Returns:
        The built model.

    Raises:
        ValueError: As in `conv_2`.

    Source: Frankle & Carbin, 1803.03635, figure 2 and section 3.

    Example:

    >>> conv_6((32, 32, 3), 10).count_params()
    2262602
    """
    return _conv("conv_6", (64, 128, 256), input_shape, classes, dropout)


def _conv(
    name: str, widths: tuple[int, ...], input_shape: tuple[int, ...], classes: int, dropout: float
) -> keras.Model:
    """Two convolutions and a pool for each width, then the three dense layers."""
    check_images(name, input_shape)
    if not (isinstance(dropout, (int, float)) and 0 <= dropout < 1):
        raise ValueError(
            f"{name}: `dropout` must be a rate from 0 (none) to below 1. Received: {dropout!r}"
        )
    model = keras.Sequential([keras.Input(input_shape)], name=name)
    for i, width in enumerate(widths):
        for n in (2 * i + 1, 2 * i + 2):
            model.add(
                layers.Conv2D(width, 3, 1, "same", activation="relu", kernel_initializer=_INIT,
                              name=f"conv{n}")
            )  # fmt: skip
        model.add(layers.MaxPooling2D(padding="same", name=f"pool{i + 1}"))
    model.add(layers.Flatten(name="flatten"))
    dense = (("dense1", 256, "relu"), ("dense2", 256, "relu"), ("logits", classes, None))
    for i, (layer, units, activation) in enumerate(dense):
        if dropout:
            model.add(layers.Dropout(dropout, name=f"dropout{i + 1}"))
        model.add(layers.Dense(units, activation, kernel_initializer=_INIT, name=layer))
    return model
