"""The one door: its names, their docstrings, and what else promises them."""

import inspect
import re
from pathlib import Path

import pytest

import keras_lottery as kl

MODULES = [
    *(kl.analysis, kl.controls, kl.convert, kl.criteria, kl.export, kl.scopes, kl.strong),
    *(kl.tfmot, kl.wrappers, kl.xnnpack),
]
DOOR = [getattr(kl, name) for name in kl.__all__ if name != "__version__"]
OBJECTS = [o for o in DOOR if not inspect.ismodule(o)] + [
    o
    for module in MODULES
    for name, o in vars(module).items()
    if not name.startswith("_")
    and str(getattr(o, "__module__", "")).startswith(module.__name__)
    and (inspect.isfunction(o) or inspect.isclass(o))
]
EXAMPLED = [
    o
    for o in DOOR
    if inspect.isfunction(o) or (inspect.isclass(o) and not issubclass(o, Exception))
] + [
    getattr(room, name)
    for room in (kl.analysis, kl.convert, kl.export)
    for name in room.__all__
    if name.islower() and callable(getattr(room, name))
]
README = Path(__file__).parents[1] / "README.md"


def test_all_lists_every_public_name_once_in_order():
    public = {n for n, o in vars(kl).items() if not n.startswith("_") and o in DOOR}
    assert public | {"__version__"} == set(kl.__all__)
    assert sorted(kl.__all__) == kl.__all__


@pytest.mark.parametrize("thing", OBJECTS, ids=lambda o: f"{o.__module__}.{o.__qualname__}")
def test_public_things_have_docstrings(thing):
    doc = inspect.getdoc(thing)
    assert doc and len(doc) > 20


@pytest.mark.parametrize("thing", EXAMPLED, ids=lambda o: o.__qualname__)
def test_the_doors_names_have_a_runnable_example(thing):
    assert ">>> " in inspect.getdoc(thing)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"kl\.([A-Za-z_.]+)", README.read_text()))))
def test_the_readme_uses_names_that_exist(name):
    thing = kl
    for part in name.split("."):
        thing = getattr(thing, part)
    assert thing is not kl


def test_the_readmes_fit_example_runs():
    import keras
    import numpy as np

    x, y = np.random.default_rng(0).random((32, 4), "float32"), np.arange(32) % 2
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    code = re.search(r"```python\n(import keras_lottery.*?)\n.*?```", README.read_text(), re.S)[0]
    lottery_line = next(line for line in code.splitlines() if line.startswith("lottery = "))
    names = {"kl": kl}
    exec(lottery_line, names)
    lottery = names["lottery"]
    lottery.verbose = 0
    model.fit(x, y, epochs=55, validation_data=(x, y), callbacks=[lottery], verbose=0)
    assert len(lottery.rounds) == 11
    assert lottery.ticket().density == pytest.approx(0.107, abs=0.02)
