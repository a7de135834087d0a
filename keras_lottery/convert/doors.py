"""The three functions: a ticket from open_lth, from torch.nn.utils.prune, and back."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_lottery import weights
from keras_lottery.convert import flattening, layouts, matching, states
from keras_lottery.convert.layouts import Layout
from keras_lottery.convert.states import Module, State
from keras_lottery.masks import Array, Masks, Path
from keras_lottery.tickets import Ticket, match

Names = Mapping[str, str]
Flattened = Mapping[str, tuple[int, ...]]


def from_open_lth(
    model: keras.Model,
    state: State,
    masks: State | None = None,
    names: Names | None = None,
    flattened: Flattened | None = None,
) -> Ticket:
    """A ticket of a checkpoint and a mask that open_lth wrote.

    Args:
        model: A built Keras 3 model of the same layers; it is not changed.
        state: The tensors of `model_ep*_it*.pth`: dict of name to array, or the path of a
            `.npz` or `.safetensors` file made of it. For a ticket to train, that of the
            rewind point.
        masks: The tensors of `mask.pth` in the same form, 1 = alive. Default None: all
            prunable weights are alive.
        names: Dict of a torch module's name (`"blocks.3.shortcut.0"`) to a layer's name or
            path. Default: in order, shapes compared. What it leaves out is matched in order.
        flattened: Dict of a layer's name to the shape `(height, width, channels)` of the
            image that was flattened before it. Default: as the model's graph shows.

    Returns:
        The ticket, under the model's paths. `metadata["torch_modules"]` names the module of
        each layer, `metadata["rows_permuted"]` the layers after a flattened image.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If state, masks and model do not fit; names the first that does not.

    Source: Frankle et al., 1912.05671; https://github.com/facebookresearch/open_lth.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> state = {"fc.weight": np.array([[3.0, 4.0]]), "fc.bias": np.array([5.0])}
    >>> ticket = from_open_lth(model, state, {"fc.weight": np.array([[0, 1]])})
    >>> handle = ticket.apply(model)
    >>> ticket.density, model.layers[0].kernel.numpy().tolist()
    (0.5, [[0.0], [4.0]])
    """
    read = states.read(state)
    modules = states.modules(read)
    if masks is not None:
        _add_masks(modules, states.read(masks))
    pairs = _pairs(model, read, modules, names, flattened)
    alive = _masks(pairs)
    if masks is None:
        prunable = weights.prunable(model).items()
        alive = {path: np.ones(tuple(v.shape), bool) for path, v in prunable}
    return _ticket("open_lth", model, pairs, alive)


def from_torch_prune(
    model: keras.Model,
    state: State,
    names: Names | None = None,
    flattened: Flattened | None = None,
) -> Ticket:
    """A ticket of the state dict of a network pruned by `torch.nn.utils.prune`.

    Args:
        model: A built Keras 3 model of the same layers; it is not changed.
        state: `module.state_dict()` as dict of name to array, or the path of a `.npz` or
            `.safetensors` file. `weight_orig` and `weight_mask` are a weight and its mask.
            Where the mask was made permanent (`prune.remove`), the zeros of a prunable
            `weight` are the pruned ones.
        names, flattened: As in `from_open_lth`.

    Returns:
        The ticket, as `from_open_lth` gives it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If state and model do not fit; names the first that does not.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> state = {"0.weight_orig": np.array([[3.0, 4.0]]), "0.weight_mask": np.array([[1.0, 0.0]])}
    >>> next(iter(from_torch_prune(model, state).weights.values())).tolist()
    [[3.0], [0.0]]
    """
    read = states.read(state)
    pairs = _pairs(model, read, states.modules(read), names, flattened)
    values = _values(pairs)
    removed = {p: np.asarray(values[p] != 0, bool) for p in weights.prunable(model) if p in values}
    return _ticket("torch.nn.utils.prune", model, pairs, removed | _masks(pairs))


def to_torch_prune(
    ticket: Ticket,
    model: keras.Model,
    names: Names | None = None,
    flattened: Flattened | None = None,
) -> dict[str, Array]:
    """The reverse of `from_torch_prune`: a state dict for a network pruned by torch.

    Masked weights become `weight_orig` and `weight_mask` (float, 1 = alive), so call
    `torch.nn.utils.prune.identity(module, "weight")` on those modules before
    `load_state_dict`. A ticket holds no values of pruned weights: `weight_orig` is 0 there.

    Args:
        ticket: A ticket of `model`'s layers.
        model: A built Keras 3 model; it says which layer is of what kind.
        names: Dict of a torch module's name to a layer's name or path. Default: the names of
            the state that the ticket came from, else the layers' paths with dots.
        flattened: As in `from_open_lth`.

    Returns:
        Dict of torch name to array, in torch's order.

    Raises:
        ValueError: If ticket and model do not fit; names the first mismatch.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> kernel = model.layers[0].kernel.path
    >>> ticket = Ticket.of(model, {kernel: np.array([[True], [False]])})
    >>> to_torch_prune(ticket, model, names={"fc": kernel.rpartition("/")[0]})["fc.weight_mask"]
    array([[1., 0.]], dtype=float32)
    """
    ticket = _under(ticket, model)
    plan = layouts.of_model(model, flattening.before(model, flattened))
    state: dict[str, Array] = {}
    for name, layout in zip(_torch_names(ticket, plan, names), plan, strict=True):
        for part, array in _torch_parts(ticket, layout).items():
            state[f"{name}.{part}" if name else part] = array
    return state


def _torch_parts(ticket: Ticket, layout: Layout) -> dict[str, Array]:
    """One module's part of a state dict: plain parameters first, then pruned ones and masks."""
    plain: dict[str, Array] = {}
    pruned: dict[str, Array] = {}
    for role, path in layout.paths.items():
        array = layout.to_torch(role, ticket.weights[path])
        if path in ticket.masks:
            mask = layout.to_torch(role, ticket.masks[path])
            pruned |= {f"{role}_orig": array, f"{role}_mask": mask.astype(array.dtype)}
        else:
            plain[role] = array
    if "running_mean" in plain:
        plain["num_batches_tracked"] = np.zeros((), np.int64)
    return plain | pruned


def _torch_names(ticket: Ticket, plan: list[Layout], names: Names | None) -> list[str]:
    known = ticket.metadata.get("torch_modules")
    if names is None and known is not None and len(known) == len(plan):
        return list(known)
    modules = [Module(layout.path.replace("/", ".")) for layout in plan]
    default = {layout.path: m.name for layout, m in zip(plan, modules, strict=True)}
    of_layer = {la.layer.name: la.path for la in plan} | {la.path: la.path for la in plan}
    for name, layer in (names or {}).items():
        if layer not in of_layer:
            raise ValueError(
                f"`names` has {layer!r}, which is no layer of the model. There are: {list(default)}"
            )
        default[of_layer[layer]] = name
    return list(default.values())


def _add_masks(modules: list[Module], masks: Mapping[str, Array]) -> None:
    of_name = {m.name: m for m in modules}
    for name, value in masks.items():
        prefix, _, role = name.rpartition(".")
        module = of_name.get(prefix)
        if module is None or role not in module.values:
            raise ValueError(
                f"The masks have {name!r}, which the state has not. Its modules are: "
                f"{list(of_name)}"
            )
        mask = states.as_mask(name, value)
        if mask.shape != module.values[role].shape:
            raise ValueError(
                f"The mask {name!r} must have its weight's shape {module.values[role].shape}. "
                f"Received: {mask.shape}"
            )
        module.masks[role] = mask


def _pairs(
    model: keras.Model,
    state: Mapping[str, Array],
    modules: list[Module],
    names: Names | None,
    flattened: Flattened | None,
) -> matching.Pairs:
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built: call it on a batch, or give it a "
            "`keras.Input`, before a torch state is converted for it."
        )
    plan = layouts.of_model(model, flattening.before(model, flattened))
    return matching.match(modules, plan, names, in_order=not matching.is_sorted(list(state)))


def _values(pairs: matching.Pairs) -> dict[Path, Array]:
    return {
        layout.paths[role]: layout.to_keras(role, value).astype(
            str(layout.variables[role].dtype), copy=False
        )
        for module, layout in pairs
        for role, value in module.values.items()
    }


def _masks(pairs: matching.Pairs) -> Masks:
    return {
        layout.paths[role]: np.asarray(layout.to_keras(role, mask), bool)
        for module, layout in pairs
        for role, mask in module.masks.items()
    }


def _ticket(source: str, model: keras.Model, pairs: matching.Pairs, masks: Masks) -> Ticket:
    values = _values(pairs)
    order = list(weights.all_weights(model))
    metadata: dict[str, Any] = {
        "source": source,
        "torch_modules": [module.name for module, _ in pairs],
        "rows_permuted": [layout.path for _, layout in pairs if layout.flattened],
    }
    return Ticket(
        {p: masks[p] for p in order if p in masks}, {p: values[p] for p in order}, metadata
    )


def _under(ticket: Ticket, model: keras.Model) -> Ticket:
    """The ticket under the model's paths; fresh models give the same layers new names."""
    new = match(ticket.weights, weights.all_weights(model))
    masks = {new[p]: mask for p, mask in ticket.masks.items()}
    values = {new[p]: value for p, value in ticket.weights.items()}
    return Ticket(masks, values, ticket.metadata)
