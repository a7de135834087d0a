"""VGG networks for CIFAR: with BatchNorm, and one dense layer."""

import keras
from keras import layers

from keras_lottery.experiments.models.parts import averaged, check_images, conv_norm


def vgg_16(input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """VGG-16 for CIFAR: 2x64, 2x128, 3x256, 3x512 and 3x512 filters, mean, logits.

    3x3 convolutions with BatchNorm, a 2x2 max pool between stages, mean over the image.
    14,732,490 parameters on CIFAR-10, 8,448 of them the statistics of BatchNorm; 14,715,584
    are prunable. He normal initialization.

    Args:
        input_shape: `(height, width, channels)`, at least 8 pixels high and wide.
        classes: Number of logits.

    Returns:
        The built model.

    Raises:
        ValueError: If the shape is not one of images, or they are too small.

    Source: Simonyan & Zisserman, 1409.1556, table 1, D; in this form in Frankle et al.,
    1912.05671.

    Example:

    >>> vgg_16((32, 32, 3), 10).count_params()
    14732490
    """
    return _vgg("vgg_16", (2, 2, 3, 3, 3), input_shape, classes, "he_normal")


def vgg_19(input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """VGG-19 of the lottery paper: 2x64, 2x128, 4x256, 4x512 and 4x512 filters, mean, logits.

    As `vgg_16`, but for three more convolutions and Glorot normal initialization. 20,046,026
    parameters on CIFAR-10, 11,008 of them the statistics of BatchNorm; 20,024,000 are prunable.

    Args:
        input_shape: `(height, width, channels)`, at least 8 pixels high and wide.
        classes: Number of logits.

    Returns:
        The built model.

    Raises:
        ValueError: If the shape is not one of images, or they are too small.

    Source: Frankle & Carbin, 1803.03635, figure 2.

    Example:

    >>> vgg_19((32, 32, 3), 10).count_params()
    20046026
    """
    return _vgg("vgg_19", (2, 2, 4, 4, 4), input_shape, classes, "glorot_normal")


def _vgg(
    name: str, depths: tuple[int, ...], input_shape: tuple[int, ...], classes: int, init: str
) -> keras.Model:
    check_images(name, input_shape)
    inputs = x = keras.Input(input_shape)
    for s, (filters, depth) in enumerate(zip((64, 128, 256, 512, 512), depths, strict=True)):
        if s:
            x = layers.MaxPooling2D(padding="same", name=f"pool{s}")(x)
        for n in range(depth):
            x = conv_norm(x, filters, 3, init, f"stage{s + 1}_conv{n + 1}")
    return averaged(name, inputs, x, classes, init)
