"""A torch state dict as arrays by module: `fc.weight_orig` is the weight of the module `fc`."""

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load_file

from keras_lottery.masks import Array

State = Mapping[str, Any] | str | os.PathLike[str]

ROLES = ("weight", "bias", "running_mean", "running_var")
_HOW = (
    "Convert it where torch is installed:\n"
    '    state = torch.load("model.pth", map_location="cpu")\n'
    '    numpy.savez("model.npz", **{name: value.numpy() for name, value in state.items()})'
)


@dataclass
class Module:
    """What a state dict says of one torch module.

    Attributes:
        name: Its name in the network, `"blocks.0.conv1"`.
        values: Dict of `"weight"`, `"bias"`, `"running_mean"`, `"running_var"` to array.
        masks: Dict of `"weight"` or `"bias"` to bool array, True = alive.
    """

    name: str
    values: dict[str, Array] = field(default_factory=dict)
    masks: dict[str, Array] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Role to shape, in the order of `ROLES`."""
        return {role: self.values[role].shape for role in ROLES if role in self.values}


def read(state: State) -> dict[str, Array]:
    """The arrays of a state dict, by name, in its order; of a `.safetensors` file sorted.

    Args:
        state: Dict of name to array, or the path of a `.npz` or `.safetensors` file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is of another kind, or cannot be read.

    Example:

    >>> read({"fc.weight": [[1.0, 2.0]]})["fc.weight"].shape
    (1, 2)
    """
    if isinstance(state, Mapping):
        return {str(name): np.asarray(value) for name, value in state.items()}
    path = File(state)
    if not path.exists():
        raise FileNotFoundError(f"There is no file of a torch state at {str(path)!r}.")
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(
            "A torch state is a dict of arrays, or a .npz or .safetensors file. Received: "
            f"{str(path)!r}. {_HOW}"
        )
    try:
        if path.suffix == ".safetensors":
            # The file sorts by dtype before name: by name alone it is seen to be sorted.
            return dict(sorted(load_file(path).items()))
        with np.load(path, allow_pickle=False) as file:
            return dict(file.items())
    except (ValueError, OSError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
        raise ValueError(f"Cannot read the torch state {str(path)!r}: {error}. {_HOW}") from error


def modules(state: Mapping[str, Array]) -> list[Module]:
    """The modules of a state dict, in its order.

    `weight_orig` and `weight_mask` are the weight and its mask; `num_batches_tracked` is
    left out, since Keras has no such count.

    Raises:
        ValueError: If a name is of a kind of module that is not converted, or a mask has
            no weight of its shape or other values than 0 and 1; names it.

    Example:

    >>> state = {"0.bias": np.zeros(1), "0.weight_orig": np.ones((1, 2)),
    ...          "0.weight_mask": np.array([[0.0, 1.0]])}
    >>> modules(state)[0].masks["weight"].tolist()
    [[False, True]]
    """
    found: dict[str, Module] = {}
    for name, value in state.items():
        prefix, _, last = name.rpartition(".")
        if last == "num_batches_tracked":
            continue
        role, _, kind = (
            last.rpartition("_") if last.endswith(("_orig", "_mask")) else (last, "", "")
        )
        if role not in ROLES:
            raise ValueError(
                f"Expected names that end in {', '.join(ROLES)}, or in `_orig` and `_mask` of "
                f"these. Received: {name!r}. Recurrent and attention modules of torch store their "
                "weights joined; convert the other layers, and set these by hand."
            )
        module = found.setdefault(prefix, Module(prefix))
        if kind == "mask":
            module.masks[role] = as_mask(name, value)
        else:
            module.values[role] = value
    for module in found.values():
        _check_masks(module)
    return list(found.values())


def as_mask(name: str, value: Array) -> Array:
    """A mask of zeros and ones as bool.

    Raises:
        ValueError: If it holds anything else; names it.

    Example:

    >>> as_mask("fc.weight", np.array([0, 1], np.int32)).tolist()
    [False, True]
    """
    mask = np.asarray(value)
    alive = mask == 1
    if not np.all(alive | (mask == 0)):
        raise ValueError(f"A mask holds zeros and ones only. {name!r} holds other values.")
    return np.asarray(alive, bool)


def _check_masks(module: Module) -> None:
    for role, mask in module.masks.items():
        shape = module.shapes.get(role)
        if shape != mask.shape:
            raise ValueError(
                f"The mask of {module.name + '.' + role!r} has the shape {mask.shape}; the state "
                f"has {'no such weight' if shape is None else f'a weight of the shape {shape}'}."
            )
