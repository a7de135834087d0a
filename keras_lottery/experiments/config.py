"""All settings of an experiment, as flags and files hold them, and the name that they give it."""

import hashlib
import json
import math
import numbers
import re
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from keras_lottery.criteria import NAMED as CRITERIA
from keras_lottery.experiments.optimizers import OPTIMIZERS
from keras_lottery.settings import REWIND, check_integer

FORMAT = 2
SCOPES = ("layerwise", "global", "erk", "nm", "block", "channels")
_KINDS: dict[type, tuple[type, str]] = {
    bool: (bool, "True or False"),
    int: (numbers.Integral, "an integer"),
    float: (numbers.Real, "a number"),
    str: (str, "a text"),
}


def _setting(default: Any, words: str, choices: tuple[str, ...] = (), least: Any = None) -> Any:
    about = {"help": words, "choices": choices, "least": least}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Config:
    """What one training of an experiment is: data, model, optimizer, pruning.

    Every field is a flag of `keras-lottery find`, with the help text given here. Counts of
    steps are texts: `"500it"` optimizer steps, `"2ep"` epochs. How often it is repeated
    (rounds, replicates, controls) is not part of it.

    Example:

    >>> Config(learning_rate=0.1).steps is None
    True
    """

    dataset: str = _setting(
        "digits",
        "digits (scikit-learn's, embedded); the path of an .npz with x_train, y_train, x_test, "
        "y_test; or a name of tensorflow-datasets.",
    )
    validation: int | None = _setting(
        None, "Images held out of the training part. Default: 5,000 of 50,000 or more, else a "
        "tenth.", least=1,
    )  # fmt: skip
    subset: int | None = _setting(None, "Train on so many images only.", least=1)
    label_noise: float = _setting(0.0, "Fraction of the training labels drawn anew.")
    shuffle_labels: bool = _setting(False, "Permute all training labels (a sanity check).")
    augment: str = _setting("none", "Of training images.", ("none", "flip_crop"))
    model: str = _setting(
        "lenet_300_100",
        "One of the papers' networks, or module:function, a function (input_shape, classes) -> "
        "Keras model with logits at the end.",
    )
    dropout: float | None = _setting(None, "Dropout rate, for the models that have it.")
    initializer: str | None = _setting(
        None, "A Keras initializer for all prunable weights. Default: the model's own."
    )
    steps: str | None = _setting(
        None, "Length of each training, as 50000it or 40ep. Default: 25ep on the digits, else "
        "the paper's 50000it.",
    )  # fmt: skip
    batch_size: int = _setting(60, "Images a step.", least=1)
    optimizer: str = _setting("adam", "momentum is SGD with momentum 0.9.", tuple(OPTIMIZERS))
    learning_rate: float = _setting(1.2e-3, "Learning rate, at its highest.")
    warmup: str = _setting("0it", "The rate rises linearly from 0 for so long.")
    lr_drops: tuple[str, ...] = _setting((), "When the rate drops, as 20000it,25000it.")
    drop_factor: float = _setting(0.1, "What the rate is multiplied with at each drop.")
    cosine: bool = _setting(False, "The rate falls to 0 along a cosine after the warmup.")
    weight_decay: float = _setting(0.0, "L2 penalty: adds this times the weight to its gradient.")
    prune_fraction: float = _setting(0.2, "Fraction of the surviving weights removed each round.")
    conv_fraction: float | None = _setting(
        None, "The same for convolutions, with --scope=layerwise. Default: --prune_fraction."
    )
    output_fraction: float | None = _setting(
        None, "The same for the output layer, with --scope=layerwise. Default: half of "
        "--prune_fraction.",
    )  # fmt: skip
    exclude: str | None = _setting(
        None, "Regex of weights that count but are never pruned, with layerwise or global."
    )
    scope: str = _setting("layerwise", "Where weights compete.", SCOPES)
    criterion: str = _setting("magnitude", "What scores a weight.", tuple(sorted(CRITERIA)))
    rewind: str = _setting(
        "weights",
        "weights: back to the rewind point; learning_rate: keep the weights, set the schedule "
        "back; none: fine-tune.",
        REWIND,
    )
    rewind_to: str = _setting("0it", "The rewind point: 500it or 2ep.")
    eval_every: str | None = _setting(
        None, "How often validation and test are evaluated. Default: 1ep on the digits, else the "
        "paper's 100it.",
    )  # fmt: skip
    seed: int = _setting(
        0, "Of data split and pruning; replicate r draws weights and data order from seed + r.",
        least=0,
    )  # fmt: skip

    def __post_init__(self) -> None:
        for f in fields(self):
            value = _typed(f.name, getattr(self, f.name), f.type)
            object.__setattr__(self, f.name, value)
            _check_field(f.name, value, f.metadata)
        self._check_ranges()
        if self.cosine and self.lr_drops:
            raise ValueError("Choose `cosine` or `lr_drops`, not both.")
        for text in self._texts():
            parse_steps(text, 1)
        self._check_scope()

    def _texts(self) -> list[str]:
        named = (self.steps, self.eval_every, self.warmup, self.rewind_to)
        return [t for t in named if t is not None] + list(self.lr_drops)

    def _check_ranges(self) -> None:
        for name in ("learning_rate", "drop_factor"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be above 0. Received: {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"`weight_decay` is at least 0. Received: {self.weight_decay}")
        if not 0 <= self.label_noise <= 1:
            raise ValueError(f"`label_noise` must lie in [0, 1]. Received: {self.label_noise}")
        if not 0 < self.prune_fraction < 1:
            raise ValueError(
                "`prune_fraction` must lie strictly between 0 and 1: the fraction of the "
                f"surviving weights removed each round. Received: {self.prune_fraction}"
            )
        for name in ("conv_fraction", "output_fraction", "dropout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"`{name}` must lie in [0, 1). Received: {value}")

    def _check_scope(self) -> None:
        for name in ("conv_fraction", "output_fraction"):
            if getattr(self, name) is not None and self.scope != "layerwise":
                raise ValueError(f"`{name}` goes with the scope layerwise. Received: {self.scope}")
        if self.exclude is not None and self.scope not in ("layerwise", "global"):
            raise ValueError(
                f"`exclude` goes with the scopes layerwise and global. Received: {self.scope}"
            )
        try:
            re.compile(self.exclude or "")
        except re.error as error:
            raise ValueError(
                f"`exclude` is no regex: {error}. Received: {self.exclude!r}"
            ) from None

    def complete(self) -> "Config":
        """The config with its open defaults filled in."""
        digits, by_layer = self.dataset == "digits", self.scope == "layerwise"
        half = self.prune_fraction / 2 if by_layer else None
        return replace(
            self,
            steps=self.steps or ("25ep" if digits else "50000it"),
            eval_every=self.eval_every or ("1ep" if digits else "100it"),
            output_fraction=half if self.output_fraction is None else self.output_fraction,
        )

    def scaled(self, scale: float) -> "Config":
        """Trainings, warmup, drops and rewind point `scale` times as long, for a trial."""
        if not 0 < scale < math.inf:
            raise ValueError(f"`scale` must be above 0. Received: {scale}")
        if scale == 1:
            return self
        full = self.complete()
        names = ("steps", "warmup", "rewind_to")
        changes: dict[str, Any] = {n: _times(getattr(full, n), scale) for n in names}
        return replace(full, lr_drops=tuple(_times(t, scale) for t in full.lr_drops), **changes)

    def identity(self) -> str:
        """Eight hex digits over every setting, defaults included, and the run format.

        Example:

        >>> Config().identity() == Config(prune_fraction=0.2, output_fraction=0.1).identity()
        True
        >>> Config().identity() == Config(seed=1).identity()
        False
        """
        text = json.dumps({"format": FORMAT, **asdict(self.complete())}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def from_dict(values: Mapping[str, Any]) -> Config:
    """The config of what `asdict` gave, through JSON or not.

    Raises:
        ValueError: If it holds a name that is no setting, or a value out of range.
    """
    known = {f.name for f in fields(Config)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"Unknown settings {unknown}. The settings are: {sorted(known)}")
    return Config(**values)


def parse_steps(text: str, steps_per_epoch: int) -> int:
    """Optimizer steps from `"500it"` or `"2ep"`; a fraction of an epoch is rounded.

    Raises:
        ValueError: If the text is neither.

    Example:

    >>> parse_steps("500it", 20), parse_steps("2ep", 20), parse_steps("0.5ep", 20)
    (500, 40, 10)
    """
    match = re.fullmatch(r"(\d+)it|(\d+(?:\.\d+)?)ep", text)
    if not match:
        raise ValueError(f"Expected steps as `500it` or epochs as `2ep`. Received: {text!r}")
    return int(match[1]) if match[1] else round(float(match[2]) * steps_per_epoch)


def _times(text: str, scale: float) -> str:
    number, unit = float(text[:-2]) * scale, text[-2:]
    if unit == "ep":
        return f"{f'{number:.9f}'.rstrip('0').rstrip('.')}ep"
    return f"{max(round(number), 1) if float(text[:-2]) else 0}it"


def _typed(name: str, value: Any, kind: Any) -> Any:
    """The value as its field declares it, of Python's own types."""
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise ValueError(f"`{name}` must be a list of texts. Received: {value!r}")
        return tuple(value)
    kinds = (kind, *typing.get_args(kind))
    if value is None and type(None) in kinds:
        return None
    base = next(k for k in _KINDS if k in kinds)
    accepted, words = _KINDS[base]
    if not isinstance(value, accepted) or isinstance(value, bool) != (base is bool):
        raise ValueError(f"`{name}` must be {words}. Received: {value!r}")
    return base(value)


def _check_field(name: str, value: Any, about: Mapping[str, Any]) -> None:
    if about["choices"] and value not in about["choices"]:
        raise ValueError(f"`{name}` must be one of {list(about['choices'])}. Received: {value!r}")
    if about["least"] is not None and value is not None:
        check_integer(name, value, least=about["least"])
