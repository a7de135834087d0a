"""The fully connected network of the lottery paper."""

import keras
from keras import layers


def lenet_300_100(input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """LeNet-300-100: two hidden layers of 300 and 100 ReLU units, logits at the end.

    266,610 parameters on MNIST, 266,200 of them prunable. Glorot normal initialization.

    Args:
        input_shape: Of one sample, without the batch; of any rank.
        classes: Number of logits.

    Returns:
        The built model.

    Source: Frankle & Carbin, 1803.03635, figure 2.

    Example:

    >>> lenet_300_100((28, 28, 1), 10).count_params()
    266610
    """
    init = "glorot_normal"
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Flatten(name="flatten"),
            layers.Dense(300, "relu", kernel_initializer=init, name="dense1"),
            layers.Dense(100, "relu", kernel_initializer=init, name="dense2"),
            layers.Dense(classes, kernel_initializer=init, name="logits"),
        ],
        name="lenet_300_100",
    )
