"""Plant 'n' Seek: a ticket is planted into a random network, and pruners look for it.

Prints how good the tickets are that each pruner finds, untrained ("strong") and trained
("weak"), and how many of the planted weights they hold, as in "Plant 'n' Seek: Can You Find
the Winning Ticket?" (2111.11153). Draws what some tickets for the circles decide.

    python examples/plant_n_seek.py --problem=circle --mothers=3
"""

import keras
import numpy as np
from absl import app, flags
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from keras_lottery.strong import planting, problems, pruners, seeking

_TINY = flags.DEFINE_bool("tiny", False, "A small network, one epoch, to see that it runs.")
_PROBLEM = flags.DEFINE_enum("problem", "circle", ["relu", "circle", "helix"], "What to plant.")
_MOTHERS = flags.DEFINE_integer("mothers", 1, "Networks to plant into.")
_EPOCHS = flags.DEFINE_integer("epochs", 10, "Epochs of each training.")
_FIGURE = flags.DEFINE_string("figure", "plant_n_seek.png", "Where to draw the circles.")
COLOURS = ListedColormap(["tab:blue", "tab:orange", "tab:green", "tab:red"])


def contestants(samples, epochs, rounds):
    named = {name: pruners.one_shot(name) for name in ("random", "magnitude", "snip", "gradient")}
    anneal = epochs * samples // 48  # two thirds of the steps
    return {
        **named,
        "iterative": pruners.iterative(rounds, epochs),
        "edge-popup": pruners.searched(epochs=epochs, learning_rate=0.01, anneal=anneal),
    }


def tickets(mother, named, data, epochs):
    """What is drawn: heading and model."""
    yield "planted", seeking.masked_copy(mother, mother.kernels)
    for name, density in [("edge-popup", 0.5), ("magnitude", 0.1), ("snip", mother.density)]:
        keras.utils.set_random_seed(0)
        whole = seeking.compiled(seeking.masked_copy(mother, {}), mother.problem)
        model = seeking.masked_copy(mother, named[name](whole, density, data))
        yield f"{name}, {density:.2g}", model
        if name != "edge-popup":
            seeking.train_ticket(model, mother.problem, data, epochs)
            yield f"{name}, {density:.2g}, trained", model


def draw(mother, named, data, epochs, path):
    figure = Figure(figsize=(10, 6.6), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True, sharey=True).ravel()
    side = np.linspace(-1, 1, 300)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    test = mother.problem.data(300, seed=1)
    look = {"cmap": COLOURS, "vmin": 0, "vmax": 3}
    for axis, (heading, model) in zip(axes, tickets(mother, named, data, epochs), strict=True):
        classes = keras.ops.convert_to_numpy(model(grid)).argmax(1).reshape(300, 300)
        axis.imshow(classes, extent=(-1, 1, -1, 1), origin="lower", alpha=0.35, **look)
        axis.scatter(*test[0].T, c=test[1], s=8, **look)
        for squared in problems.RADII:
            axis.plot(*np.sqrt(squared) * circle_points(), color="black", linewidth=0.8)
        correct = seeking.score(model, mother.problem, mother.problem.data(2000, seed=2))
        axis.set_title(f"{heading}: {correct:.1%} correct", fontsize=9)
    figure.savefig(path, dpi=120)


def circle_points():
    angle = np.linspace(0, 2 * np.pi, 200)
    return np.stack([np.cos(angle), np.sin(angle)])


def main(_):
    problem = getattr(problems, _PROBLEM.value)()
    width, samples, epochs, rounds = (
        (40, 200, 1, 2) if _TINY.value else (100, 9000, _EPOCHS.value, 10)
    )
    mothers = [planting.plant(problem, width=width, seed=s) for s in range(_MOTHERS.value)]
    named = contestants(samples, epochs, rounds)
    densities = [0.1] if _TINY.value else None
    rows = seeking.seek(mothers, named, densities, samples=samples, epochs=epochs)
    if len(mothers) > 1:
        print()
        seeking.show(rows)
    if problem.name == "circle":
        draw(mothers[0], named, problem.data(samples, noise=0.01), epochs, _FIGURE.value)
        print(f"Drawn: {_FIGURE.value}")


if __name__ == "__main__":
    app.run(main)
