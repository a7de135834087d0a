"""The papers' networks, with the papers' initialization, and users' own."""

from keras_lottery.experiments.models.conv import conv_2, conv_4, conv_6, lenet_5
from keras_lottery.experiments.models.dense import lenet_300_100
from keras_lottery.experiments.models.naming import NAMED, Builder, build, resolve
from keras_lottery.experiments.models.residual import resnet_18, resnet_20, resnet_50
from keras_lottery.experiments.models.vgg import vgg_16, vgg_19
from keras_lottery.experiments.models.vit import PositionEmbedding, vit

__all__ = [
    "NAMED",
    "Builder",
    "PositionEmbedding",
    "build",
    "conv_2",
    "conv_4",
    "conv_6",
    "lenet_300_100",
    "lenet_5",
    "resnet_18",
    "resnet_20",
    "resnet_50",
    "resolve",
    "vgg_16",
    "vgg_19",
    "vit",
]
