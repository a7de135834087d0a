"""Residual networks: the lottery paper's, ResNet-18 and ResNet-50."""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from keras_lottery.experiments.models.parts import averaged, check_images, conv_norm

# (input, filters, strides of the first block, initializer, name) -> output
_Block = Callable[[Any, int, int, str, str], Any]


def resnet_20(input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """ResNet-20 for CIFAR: the network that the lottery paper calls Resnet-18.

    A 3x3 convolution of 16 filters; three stages of three blocks of two 3x3 convolutions of
    16, 32 and 64 filters; mean over the image; logits. The second and third stage halve the
    image, and their first block has a 1x1 convolution as its shortcut. BatchNorm after each
    convolution. 274,042 parameters on CIFAR-10, 1,568 of them the statistics of BatchNorm;
    270,896 are prunable: 267,696 in 3x3 convolutions, 2,560 in shortcuts, 640 in the last
    layer. Glorot normal initialization.

    Args:
        input_shape: `(height, width, channels)`, at least 8 pixels high and wide.
        classes: Number of logits.

    Returns:
        The built model.

    Raises:
        ValueError: If the shape is not one of images, or they are too small.

    Source: He et al., 1512.03385, section 4.2; Frankle & Carbin, 1803.03635, figure 2.

    Example:

    >>> resnet_20((32, 32, 3), 10).count_params()
    274042
    """
    check_images("resnet_20", input_shape)
    inputs = keras.Input(input_shape)
    x = conv_norm(inputs, 16, 3, "glorot_normal", "stem")
    x = _stages(x, _basic, (16, 32, 64), (3, 3, 3), "glorot_normal")
    return averaged("resnet_20", inputs, x, classes, "glorot_normal")


def resnet_18(input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """ResNet-18 of He et al.: four stages of two blocks, 64, 128, 256 and 512 filters.

    Images of less than 64 pixels enter through a 3x3 convolution; larger ones through a 7x7
    one of stride 2 and a 3x3 max pool of stride 2. Blocks and shortcuts are as in `resnet_20`.
    11,183,562 parameters on CIFAR-10, 9,600 of them the statistics of BatchNorm. He normal
    initialization. The lottery paper's "Resnet-18" is `resnet_20`.

    Args:
        input_shape: `(height, width, channels)`, at least 8 pixels high and wide.
        classes: Number of logits.

    Returns:
        The built model.

    Raises:
        ValueError: If the shape is not one of images, or they are too small.

    Source: He et al., 1512.03385, table 1; initialization: He et al., 1502.01852.

    Example:

    >>> resnet_18((32, 32, 3), 10).count_params()
    11183562
    """
    return _resnet("resnet_18", _basic, (2, 2, 2, 2), input_shape, classes)


def resnet_50(input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """ResNet-50: stages of 3, 4, 6 and 3 bottleneck blocks, 256 to 2048 channels.

    A block is a 1x1, a 3x3 and a 1x1 convolution, the last four times as wide; its stride is
    in the 3x3 one, as in later versions of the network. The stem is as in `resnet_18`.
    25,610,152 parameters on ImageNet (224x224x3, 1000 classes), 53,120 of them the statistics
    of BatchNorm, 25,557,032 trainable. He normal initialization.

    Args:
        input_shape: `(height, width, channels)`, at least 8 pixels high and wide.
        classes: Number of logits.

    Returns:
        The built model.

    Raises:
        ValueError: If the shape is not one of images, or they are too small.

    Source: He et al., 1512.03385, table 1; initialization: He et al., 1502.01852.

    Example:

    >>> resnet_50((224, 224, 3), 1000).count_params()
    25610152
    """
    return _resnet("resnet_50", _bottleneck, (3, 4, 6, 3), input_shape, classes)


def _resnet(
    name: str, block: _Block, blocks: tuple[int, ...], input_shape: tuple[int, ...], classes: int
) -> keras.Model:
    """The networks of table 1: the stem for small or large images, and four stages."""
    check_images(name, input_shape)
    inputs = keras.Input(input_shape)
    if min(input_shape[:2]) < 64:
        x = conv_norm(inputs, 64, 3, "he_normal", "stem")
    else:
        x = conv_norm(inputs, 64, 7, "he_normal", "stem", strides=2)
        x = layers.MaxPooling2D(3, 2, "same", name="stem_pool")(x)
    x = _stages(x, block, (64, 128, 256, 512), blocks, "he_normal")
    return averaged(name, inputs, x, classes, "he_normal")


def _stages(
    x: Any, block: _Block, widths: tuple[int, ...], blocks: tuple[int, ...], init: str
) -> Any:
    """The stages; each but the first halves the image in its first block."""
    for s, (filters, count) in enumerate(zip(widths, blocks, strict=True)):
        for b in range(count):
            strides = 2 if s and not b else 1
            x = block(x, filters, strides, init, f"stage{s + 1}_block{b + 1}")
    return x


def _basic(x: Any, filters: int, strides: int, init: str, name: str) -> Any:
    y = conv_norm(x, filters, 3, init, f"{name}_conv1", strides)
    y = conv_norm(y, filters, 3, init, f"{name}_conv2", relu=False)
    return _join(x, y, strides, init, name)


def _bottleneck(x: Any, filters: int, strides: int, init: str, name: str) -> Any:
    y = conv_norm(x, filters, 1, init, f"{name}_conv1")
    y = conv_norm(y, filters, 3, init, f"{name}_conv2", strides)
    y = conv_norm(y, 4 * filters, 1, init, f"{name}_conv3", relu=False)
    return _join(x, y, strides, init, name)


def _join(x: Any, y: Any, strides: int, init: str, name: str) -> Any:
    """The sum of the shortcut from `x` and of `y`, and a ReLU."""
    if x.shape != y.shape:
        x = conv_norm(x, y.shape[-1], 1, init, f"{name}_shortcut", strides, relu=False)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))
