"""The papers' protocols by name. A preset sets flags; every flag can still be given.

Where a paper says nothing (input scaling, initialization of later work), the settings are
those of this package and the preset's words say so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

LTH = "Frankle & Carbin, 1803.03635"
STABILIZING = "Frankle et al., 1903.01611"
LMC = "Frankle et al., 1912.05671"
RENDA = "Renda et al., 2003.02389"
OPENLTH = "facebookresearch/open_lth"
# ResNets and VGGs: convolutions only, everything counts.
_ONLY_CONVS = r"logits|shortcut"


@dataclass(frozen=True)
class Preset:
    """A paper's experiment.

    Attributes:
        source: Paper or code that it follows.
        words: What it is, and what the source leaves open.
        rounds: Trainings of the search, the dense one included.
        settings: Fields of `Config` that differ from its defaults.
    """

    source: str
    words: str
    rounds: int
    settings: Mapping[str, Any]

    def changed(self, words: str, **settings: Any) -> "Preset":
        """The same but for some settings."""
        return Preset(self.source, words, self.rounds, {**self.settings, **settings})


def _lth_conv(n: int, rate: float, steps: str, conv: float) -> dict[str, Preset]:
    plain = Preset(
        LTH,
        f"Conv-{n} on CIFAR-10, Adam {rate:g}, {steps}",
        rounds=25,
        settings={
            "dataset": "cifar10",
            "model": f"conv_{n}",
            "learning_rate": rate,
            "steps": steps,
            "conv_fraction": conv,
        },
    )
    slower, longer = (3e-4 if n == 2 else 2e-4), f"{3 * int(steps[:-2])}it"
    words = f"the same with dropout 0.5, Adam {slower:g}, {longer}"
    dropout = plain.changed(words, dropout=0.5, learning_rate=slower, steps=longer)
    return {f"lth/conv{n}": plain, f"lth/conv{n}_dropout": dropout}


def _rates(
    name: str, preset: Preset, warmup: str, peak: float, rewind_to: str | None = None
) -> dict[str, Preset]:
    """The three learning rates at which the papers train ResNets and VGGs.

    `rewind_to` is the rewind point of the two at which tickets are found without one.
    """
    back: dict[str, Any] = {} if rewind_to is None else {"rewind_to": rewind_to}
    where = "" if rewind_to is None else f", rewound to {rewind_to[:-2]}"
    return {
        name: preset,
        f"{name}_low": preset.changed(f"the same at 0.01{where}", learning_rate=0.01, **back),
        f"{name}_warmup": preset.changed(
            f"the same at {peak:g} after a warmup of {warmup}{where}",
            learning_rate=peak,
            warmup=warmup,
            **back,
        ),
    }


_IMAGES = {
    "dataset": "cifar10",
    "augment": "flip_crop",
    "optimizer": "momentum",
    "learning_rate": 0.1,
    "weight_decay": 1e-4,
    "scope": "global",
    "exclude": _ONLY_CONVS,
    "batch_size": 128,
}
_LENET = {"dataset": "mnist", "model": "lenet_300_100"}
_RESNET20 = {**_IMAGES, "model": "resnet_20"}
_LTH_RESNET = {**_RESNET20, "steps": "30000it", "lr_drops": ("20000it", "25000it")}
_LTH_VGG = {
    **_IMAGES,
    "model": "vgg_19",
    "batch_size": 64,
    "steps": "112480it",
    "lr_drops": ("56240it", "84360it"),
}
_LMC = {**_IMAGES, "steps": "63000it", "lr_drops": ("32000it", "48000it")}

_STABILIZING_RESNET = Preset(
    STABILIZING,
    "ResNet-20 at 0.1, rewound to step 500",
    20,
    {**_LTH_RESNET, "exclude": None, "rewind_to": "500it"},
)

_PRESETS: dict[str, Preset] = {
    "lth/lenet": Preset(LTH, "LeNet-300-100 on MNIST, Adam 1.2e-3, 50000it", 25, _LENET),
    **_lth_conv(2, 2e-4, "20000it", 0.1),
    **_lth_conv(4, 3e-4, "25000it", 0.1),
    **_lth_conv(6, 3e-4, "30000it", 0.15),
    **_rates(
        "lth/resnet20",
        Preset(LTH, 'ResNet-20 on CIFAR-10 (there "Resnet-18"), SGD 0.1', 20, _LTH_RESNET),
        "20000it",
        0.03,
    ),
    **_rates("lth/vgg19", Preset(LTH, "VGG-19 on CIFAR-10, SGD 0.1", 25, _LTH_VGG), "10000it", 0.1),
    # Their printed densities are plain powers of 0.8: every layer counts and is pruned alike.
    "stabilizing/lenet": Preset(
        STABILIZING, "LeNet-300-100 on MNIST, rewound to 0", 16, {**_LENET, "output_fraction": 0.2}
    ),
    "stabilizing/resnet20": _STABILIZING_RESNET,
    "stabilizing/resnet20_low": _STABILIZING_RESNET.changed(
        "ResNet-20 at 0.01, rewound to step 500", learning_rate=0.01
    ),
    "stabilizing/vgg19": Preset(
        STABILIZING,
        "VGG-19 at 0.1, rewound to step 100",
        25,
        {**_LTH_VGG, "exclude": None, "rewind_to": "100it"},
    ),
    "lmc/lenet": Preset(
        LMC,
        "LeNet-300-100 on MNIST, 24000it",
        16,
        {**_LENET, "steps": "24000it", "output_fraction": 0.2},
    ),
    **_rates(
        "lmc/resnet20",
        Preset(
            LMC,
            "ResNet-20 at 0.1, rewound to step 500",
            20,
            {**_LMC, "model": "resnet_20", "rewind_to": "500it", "exclude": None},
        ),
        "30000it",
        0.03,
        "0it",
    ),
    **_rates(
        "lmc/vgg16",
        Preset(
            LMC,
            "VGG-16 at 0.1, rewound to step 1000",
            25,
            {**_LMC, "model": "vgg_16", "rewind_to": "1000it"},
        ),
        "30000it",
        0.1,
        "0it",
    ),
    "renda/resnet20": Preset(
        RENDA,
        "ResNet-20 with learning-rate rewinding, 182 epochs (drops at 91 and 136 and Nesterov "
        "momentum are ours)",
        20,
        {
            **_RESNET20,
            "optimizer": "nesterov",
            "steps": "182ep",
            "lr_drops": ("91ep", "136ep"),
            "rewind": "learning_rate",
            "exclude": None,
        },
    ),
    "openlth/lenet": Preset(
        OPENLTH,
        "LeNet-300-100 on MNIST, SGD 0.1, 40 epochs, He normal, global but for the output",
        25,
        {
            **_LENET,
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "batch_size": 128,
            "steps": "40ep",
            "initializer": "he_normal",
            "scope": "global",
            "exclude": "logits",
        },
    ),
    "openlth/resnet20": Preset(
        OPENLTH,
        "ResNet-20 on CIFAR-10, 160 epochs, He normal (its BatchNorm scales start uniform, here 1)",
        20,
        {
            **_RESNET20,
            "steps": "160ep",
            "lr_drops": ("80ep", "120ep"),
            "initializer": "he_normal",
            "exclude": None,
        },
    ),
}
PRESETS: Mapping[str, Preset] = MappingProxyType(_PRESETS)


def preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        ValueError: If there is none; lists the names.

    Example:

    >>> preset("lth/conv4").settings["steps"]
    '25000it'
    """
    if name not in PRESETS:
        raise ValueError(f"Unknown preset {name!r}. The presets are: {', '.join(PRESETS)}")
    return PRESETS[name]
