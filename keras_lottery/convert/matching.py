"""Which torch module is which Keras layer: as named, else in order, shapes compared."""

import re
from collections.abc import Mapping, Sequence

from keras_lottery.convert.layouts import Layout
from keras_lottery.convert.states import Module

Pairs = list[tuple[Module, Layout]]
_DIGITS = re.compile(r"(\d+)")


def match(
    modules: Sequence[Module],
    layouts: Sequence[Layout],
    names: Mapping[str, str] | None = None,
    in_order: bool = True,
) -> Pairs:
    """Pairs modules with layers, in the order of the layers.

    Args:
        modules: The torch modules.
        layouts: The Keras layers.
        names: Dict of a torch module's name to a Keras layer's path or name. What it does
            not name is matched in order.
        in_order: False if the modules are sorted by name, as a safetensors file has them.
            Layers are then found by shape, and layers of one shape by the numbers in the
            names.

    Raises:
        ValueError: If they differ; names the first module and layer that do, and both shapes.
    """
    chosen = _named(modules, layouts, names or {})
    rest = [m for m in modules if m.name not in {m.name for m, _ in chosen.values()}]
    free = [layout for layout in layouts if layout.path not in chosen]
    if not in_order:
        rest = _by_shape(rest, free)
    for module, layout in [*chosen.values(), *zip(rest, free, strict=False)]:
        _check(module, layout)
    if len(rest) != len(free):
        raise ValueError(
            f"The state has {len(modules)} modules with weights, the model {len(layouts)} layers. "
            "First without a partner: "
            + repr(rest[len(free)].name if len(rest) > len(free) else free[len(rest)].path)
        )
    pairs = {layout.path: (m, layout) for m, layout in zip(rest, free, strict=True)} | chosen
    return [pairs[layout.path] for layout in layouts]


def is_sorted(names: Sequence[str]) -> bool:
    """Whether names stand as safetensors files have them: their modules' order is lost.

    Example:

    >>> is_sorted(["fc.bias", "fc.weight"]), is_sorted(["fc.weight", "fc.bias"])
    (True, False)
    """
    kept = [name for name in names if not name.endswith("num_batches_tracked")]
    return kept == sorted(kept)


def _named(
    modules: Sequence[Module], layouts: Sequence[Layout], names: Mapping[str, str]
) -> dict[str, tuple[Module, Layout]]:
    """Layer path to the pair that `names` makes."""
    of_name = {m.name: m for m in modules}
    of_layer = {la.layer.name: la for la in layouts} | {la.path: la for la in layouts}
    found: dict[str, tuple[Module, Layout]] = {}
    for name, layer in names.items():
        if name not in of_name or layer not in of_layer:
            kind, missing, known = (
                ("layer of the model", layer, [la.path for la in layouts])
                if name in of_name
                else ("module of the state", name, list(of_name))
            )
            raise ValueError(f"`names` has {missing!r}, which is no {kind}. There are: {known}")
        layout = of_layer[layer]
        if layout.path in found:
            raise ValueError(f"`names` gives the layer {layout.path!r} to two modules.")
        found[layout.path] = (of_name[name], layout)
    return found


def _by_shape(modules: Sequence[Module], layouts: Sequence[Layout]) -> list[Module]:
    """The modules in the order of the layers."""
    alike: dict[str, list[Module]] = {}
    for module in sorted(modules, key=lambda m: _by_number(m.name)):
        alike.setdefault(str(module.shapes), []).append(module)
    for group in alike.values():
        other = next((m for m in group if _pattern(m) != _pattern(group[0])), None)
        if other is not None:
            raise ValueError(
                f"The state is sorted by name, and {group[0].name!r} and {other.name!r} have the "
                f"same shapes {group[0].shapes}: which comes first is not known. Name them in "
                "`names={torch module: Keras layer}`, or give the state in torch's order (a .npz "
                "file keeps it, a .safetensors file does not)."
            )
    ordered = []
    for layout in layouts:
        group = alike.get(str(layout.shapes), [])
        if not group:
            raise ValueError(
                f"The state has no module left for the layer {layout.path!r}, whose weights in "
                f"torch are {layout.shapes}. It has: { {m.name: m.shapes for m in modules} }"
            )
        ordered.append(group.pop(0))
    left = [module for group in alike.values() for module in group]
    return ordered + left


def _by_number(name: str) -> list[tuple[int, str]]:
    parts = _DIGITS.split(name)
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)]


def _pattern(module: Module) -> str:
    return _DIGITS.sub("0", module.name)


def _check(module: Module, layout: Layout) -> None:
    if module.shapes != layout.shapes:
        raise ValueError(
            f"The state and the model differ. First mismatch: the module {module.name!r} has "
            f"{module.shapes}, the layer {layout.path!r} ({type(layout.layer).__name__}) needs "
            f"{layout.shapes}. If only the order differs, say which is which: "
            "`names={torch module: Keras layer}`."
        )
