"""The figures of an analysis: what is drawn is what was measured; they can be saved, or say why."""

import ast
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image, rcParams
from matplotlib.patches import StepPatch

from keras_lottery.analysis import plots
from keras_lottery.analysis.anatomy import Anatomy, LayerAnatomy
from keras_lottery.analysis.barrier import Barrier
from keras_lottery.analysis.comparing import Comparison, Stability
from keras_lottery.analysis.landscape import Landscape
from keras_lottery.analysis.movement import InitialValues, Movement, SignFlips
from keras_lottery.analysis.overlap import OverlapMatrix
from keras_lottery.analysis.plots import common
from keras_lottery.analysis.ramanujan import Ramanujan


def line(*errors, part="test", metric="error"):
    return Barrier(np.linspace(0, 1, len(errors)), {part: np.array(errors)}, metric)


def compared(kind, what, step, distance, angle, barrier=None):
    return Comparison(kind, what, step, 0, (0, 1), 0.1, distance, angle, barrier)


STABILITY = Stability(
    [
        compared("dense", "order", 0, 4.0, 40.0, line(0.1, 0.5, 0.1)),
        compared("ticket", "order", 0, 1.0, 10.0, line(0.1, 0.3, 0.1)),
        compared("ticket", "order", 0, 3.0, 30.0, line(0.1, 0.4, 0.1)),
        compared("ticket", "order", 100, 2.0, 20.0, line(0.1, 0.11, 0.1)),
        compared("ticket", "pruning", 0, 5.0, 50.0),
    ]
)


def layer(name, alive, effective, singular=None, total=10):
    bound = None if singular is None else Ramanujan(4.0, 4.0, singular, 4.0, singular <= 4)
    counts = (alive, total, alive / total, effective)
    units = (np.array([0, 1, 1, alive]), np.array([2, 2]), 0, 4)
    return LayerAnatomy(f"net/{name}/kernel", (2, 5), *counts, *units, bound, None, None)


ANATOMY = Anatomy([layer("a", 5, 4, 2.0), layer("b", 8, 8, 5.0), layer("out", 10, 10)])
COLLAPSED = Anatomy([layer("a", 5, 0), layer("b", 1, 0), layer("out", 0, None)])
FLIPS = SignFlips(np.array([0.1, 0.05]), np.array([0.1, 0.15]))
MOVED = Movement("net/a/kernel", 0.5, 0.25, 0.9, 0.4, 0.125, math.nan)
VALUES = InitialValues(np.array([-1.0, 0.0, 1.0]), np.array([3, 1]), np.array([5, 15]))
MATRIX = OverlapMatrix(
    ["a", "b"],
    np.array([[1.0, 0.5], [0.5, 1.0]]),
    np.array([[9.0, 2.5], [2.5, 9.0]]),
    np.array([[0.3, 0.25], [0.25, 0.3]]),
)
STEPS = np.linspace(-1, 1, 5)
PROFILE = Landscape((STEPS,), {"test": STEPS**2}, "loss", "filter", "ticket")
PLANE = Landscape(
    (STEPS, STEPS[1:]), {"test": np.exp(6 * STEPS)[:, None] + STEPS[1:] ** 2}, "loss", "none", "x"
)

FIGURES = {
    "anatomy": lambda: plots.anatomy({"ticket": ANATOMY, "collapsed": COLLAPSED}),
    "barrier": lambda: plots.barrier({"k = 0": [line(0.1, 0.5, 0.1), line(0.1, 0.3, 0.2)]}),
    "barrier_heights": lambda: plots.barrier_heights(STABILITY),
    "connectivity": lambda: plots.connectivity(Anatomy(ANATOMY.layers[:1])),
    "initial_values": lambda: plots.initial_values({"net/a/kernel": VALUES}),
    "landscape": lambda: plots.landscape(PLANE),
    "layers_over_rounds": lambda: plots.layers_over_rounds({"0": ANATOMY, "1": COLLAPSED}),
    "mask_distances": lambda: plots.mask_distances({"ticket": [math.nan, 0.5, 0.25]}, 0.1),
    "movement": lambda: plots.movement({"round 3": [MOVED]}),
    "overlap": lambda: plots.overlap(MATRIX),
    "pixels": lambda: plots.pixels({"round 0": 20 * np.eye(3), "round 9": np.eye(3)}),
    "ramanujan": lambda: plots.ramanujan({"ticket": ANATOMY}),
    "sign_flips": lambda: plots.sign_flips({"_ticket": FLIPS}, steps=[100, 200]),
    "stability": lambda: plots.stability(STABILITY),
}


def lines(axes):
    """Label to the line's (x, y)."""
    return {one.get_label(): one.get_data() for one in axes.lines}


def steps(axes):
    """The heights and edges of an axes' histograms."""
    return [p.get_data() for p in axes.patches if isinstance(p, StepPatch)]


# Every figure ---------------------------------------------------------------------------


def test_every_function_has_a_figure_here():
    assert sorted([*FIGURES, "save"]) == sorted(plots.__all__)


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_figure_gives_the_same_file(name, tmp_path):
    before = dict(rcParams)
    figure = FIGURES[name]()
    plots.save(figure, tmp_path / "one.png")
    plots.save(figure, tmp_path / "one.svg")
    plots.save(FIGURES[name](), tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    picture = image.imread(tmp_path / "one.png")
    assert picture.shape[0] > 200 and picture.shape[1] > 400 and picture[..., :3].std() > 0.01
    assert dict(rcParams) == before
    assert len(list(tmp_path.iterdir())) == 3


def test_a_picture_is_reproducible_too(tmp_path):
    for path in (tmp_path / "one.png", tmp_path / "two.PNG"):
        plots.save(FIGURES["overlap"](), path)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.PNG").read_bytes()


@pytest.mark.parametrize("name", FIGURES)
def test_without_matplotlib_the_extra_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-lottery\[plots\]'"):
        FIGURES[name]()


def test_matplotlib_is_imported_in_functions_only():
    for file in Path(plots.__file__).parent.glob("*.py"):
        top = ast.parse(file.read_text("utf-8")).body
        names = [ast.unparse(n) for n in top if isinstance(n, ast.Import | ast.ImportFrom)]
        assert names or file.name == "__init__.py"
        assert not [name for name in names if "matplotlib" in name]


def test_a_file_of_another_kind_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(ValueError, match=r"'.png' or '.svg'. Received: .*x.jpg"):
        plots.save(FIGURES["pixels"](), tmp_path / "x.jpg")
    with pytest.raises(FileNotFoundError):
        plots.save(FIGURES["pixels"](), tmp_path / "no" / "x.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "draw",
    [
        plots.anatomy, plots.barrier, plots.initial_values, plots.layers_over_rounds, plots.pixels,
        plots.mask_distances, plots.movement, plots.ramanujan, plots.sign_flips,
    ],
)  # fmt: skip
def test_nothing_to_draw_is_said(draw):
    with pytest.raises(ValueError, match=r"to draw\. Received: none"):
        draw({})


def test_nothing_measured_is_said():
    with pytest.raises(ValueError, match=r"to draw\. Received: none"):
        plots.stability(Stability([]))
    with pytest.raises(ValueError, match=r"to draw\. Received: none"):
        plots.connectivity(Anatomy([]))
    with pytest.raises(ValueError, match=r"to draw\. Received: none"):
        plots.barrier({"k = 0": []})
    with pytest.raises(ValueError, match="layers to draw"):
        plots.movement({"round 0": []})


# Lines ----------------------------------------------------------------------------------


def test_barriers_are_drawn_as_mean_and_range():
    (axes,) = FIGURES["barrier"]().axes
    x, y = lines(axes)["k = 0 (n = 2)"]
    assert x.tolist() == [0, 0.5, 1] and y.tolist() == pytest.approx([10, 40, 15])
    (band,) = axes.collections
    edges = band.get_paths()[0].vertices
    assert {(0.5, 30), (0.5, 50)} <= {(round(a, 6), round(b, 6)) for a, b in edges}


def test_each_data_set_has_a_panel_and_a_loss_no_percent():
    both = Barrier(np.array([0.0, 1.0]), {"train": np.ones(2), "test": np.zeros(2)}, "loss")
    left, right = plots.barrier({"ticket": [both]}).axes
    assert (left.get_title(), right.get_title(), left.get_ylabel()) == ("train", "test", "loss")
    assert lines(left)["ticket"][1].tolist() == [1, 1]


def test_barriers_of_other_points_are_refused():
    with pytest.raises(ValueError, match=r"'k' must have the same points. Received: \[2, 3\]"):
        plots.barrier({"k": [line(0, 0), line(0, 0, 0)]})


def test_heights_of_barriers_are_drawn_against_the_step():
    (axes,) = FIGURES["barrier_heights"]().axes
    dense, ticket = axes.containers
    assert dense.lines[0].get_xdata().tolist() == [0]
    assert dense.lines[0].get_ydata().tolist() == pytest.approx([40])
    assert ticket.lines[0].get_xdata().tolist() == [0, 100]
    assert ticket.lines[0].get_ydata().tolist() == pytest.approx([25, 1])
    ends = [segment[:, 1].tolist() for segment in ticket.lines[2][0].get_segments()]
    spread = 10 / math.sqrt(2)
    assert ends == [pytest.approx([25 - spread, 25 + spread]), pytest.approx([1, 1])]
    assert set(lines(axes)["2 %: stable"][1]) == {2}


def test_heights_need_barriers():
    with pytest.raises(ValueError, match=r"barriers on 'train'. Received those on \['test'\]"):
        plots.barrier_heights(STABILITY, part="train")
    with pytest.raises(ValueError, match=r"Received those on \[\]"):
        plots.barrier_heights(Stability(STABILITY.comparisons[-1:]))


def test_sign_flips_are_drawn_in_percent():
    left, right = FIGURES["sign_flips"]().axes
    assert [v.tolist() for v in lines(left)[" _ticket"]] == [[100, 200], [10, 5]]
    assert lines(right)[" _ticket"][1].tolist() == [10, 15]
    with pytest.raises(ValueError, match="Received 1 for the 2 of 'ticket'"):
        plots.sign_flips({"ticket": FLIPS}, steps=[1])


def test_mask_distances_are_drawn_by_epoch():
    (axes,) = FIGURES["mask_distances"]().axes
    x, y = lines(axes)["ticket"]
    assert x.tolist() == [1, 2, 3] and np.array_equal(y, [np.nan, 50, 25], equal_nan=True)


# Bars -----------------------------------------------------------------------------------


def test_bars_are_the_mean_distances_and_angles():
    for axes, values in zip(
        FIGURES["stability"]().axes, ([[4], [2, 2, 5]], [[40], [20, 20, 50]]), strict=True
    ):
        bars = [c for c in axes.containers if c.get_label() in ("dense", "ticket")]
        heights = [[b.get_height() for b in c if math.isfinite(b.get_height())] for c in bars]
        assert heights == values
        names = [t.get_text() for t in axes.get_xticklabels()]
        assert names == ["data order\nk = 0", "data order\nk = 100", "pruning\nk = 0"]


def test_connections_are_counted_in_bins_of_whole_numbers():
    axes = FIGURES["connectivity"]().axes
    assert [a.get_title() for a in axes[:2]] == ["a: into a unit", "a: out of an input"]
    (found,) = steps(axes[0])
    assert found.values.tolist() == [1, 2, 0, 0, 0, 1]
    assert found.edges.tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert set(axes[0].lines[0].get_xdata()) == {7 / 4}
    assert steps(axes[1])[0].values.tolist() == [2]


@pytest.mark.parametrize("n", [1, 9])
def test_each_layer_has_its_connections_however_many_there_are(n):
    many = Anatomy([layer(f"block_{i}", 5, 5) for i in range(n)])
    shown = [a.get_title() for a in plots.connectivity(many).axes if a.get_visible()]
    sides = ("into a unit", "out of an input")
    assert sorted(shown) == sorted(f"block_{i}: {side}" for i in range(n) for side in sides)


def test_initial_values_are_shares_of_survivors_and_of_all():
    (axes,) = FIGURES["initial_values"]().axes
    every, alive = steps(axes)
    assert every.values.tolist() == [25, 75] and alive.values.tolist() == [75, 25]
    assert alive.edges.tolist() == every.edges.tolist() == [-1, 0, 1]


# Layers ---------------------------------------------------------------------------------


def test_densities_are_drawn_in_percent_and_unknown_ones_left_out():
    (axes,) = FIGURES["anatomy"]().axes
    found = {label: x for label, (x, _) in lines(axes).items()}
    assert found["ticket"] == pytest.approx([50, 80, 100])
    assert found["ticket, effective"] == pytest.approx([40, 80, 100])
    assert found["collapsed"] == pytest.approx([50, 10, 0])
    assert np.array_equal(found["collapsed, effective"], [0, 0, np.nan], equal_nan=True)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b", "out"]


def test_movement_has_a_panel_for_each_measure():
    panels = FIGURES["movement"]().axes
    found = [[x[0] for x, _ in lines(a).values()] for a in panels]
    assert found == [[0.5, 0.25], [90, 40], [12.5]]  # how often pruned ones flip is not known


def test_singular_values_are_drawn_over_their_bound():
    (axes,) = FIGURES["ramanujan"]().axes
    assert np.array_equal(lines(axes)["ticket"][0], [0.5, 1.25, np.nan], equal_nan=True)


def test_layers_are_followed_over_the_rounds():
    alive, effective = FIGURES["layers_over_rounds"]().axes
    assert lines(alive)["b"][1] == pytest.approx([80, 10])
    assert np.array_equal(lines(effective)["a"][1], [40, np.nan], equal_nan=True)


def test_layers_are_named_by_what_tells_them_apart():
    assert common.short(["net/a/kernel"]) == ["a"]
    assert common.short(["net/x/a/kernel", "net/y/a/kernel"]) == ["x/a", "y/a"]
    assert common.short(["net/cell/kernel", "net/cell/gate"]) == ["cell/kernel", "cell/gate"]
    assert common.short(["kernel", "net/kernel"]) == ["kernel", "net/kernel"]
    assert common.short([f"{'long_' * 20}{i}/kernel" for i in range(2)])[1].endswith("long_1")
    assert max(map(len, common.short([f"{'long_' * 20}{i}/kernel" for i in range(2)]))) == 34


# Maps -----------------------------------------------------------------------------------


def test_a_profile_is_drawn_as_measured():
    (axes,) = plots.landscape(PROFILE).axes
    x, y = lines(axes)["test"]
    assert np.array_equal(x, STEPS) and np.array_equal(y, STEPS**2)
    assert set(lines(axes)["ticket"][0]) == {0}


def test_the_first_direction_of_a_plane_is_the_horizontal_one():
    axes = plots.landscape(PLANE).axes[0]
    (contours,) = axes.collections
    low, high = PLANE.values["test"].min(), PLANE.values["test"].max()
    assert (contours.zmin, contours.zmax) == pytest.approx((low, high))
    assert contours.levels[[0, -1]].tolist() == pytest.approx([low, high])
    assert contours.get_paths()[-1].vertices[:, 0].min() > 0.5


@pytest.mark.parametrize("value", [0.5, math.nan, math.inf])
def test_a_flat_or_unknown_plane_is_drawn_without_a_warning(value, tmp_path):
    plane = Landscape((STEPS, STEPS), {"test": np.full((5, 5), value)}, "error", "layer", "x")
    figure = plots.landscape(plane)
    plots.save(figure, tmp_path / "x.svg")
    words = [t.get_text() for t in figure.axes[0].texts]
    assert words == ([] if math.isfinite(value) else ["no finite value"])


def test_the_heat_map_shows_the_matrix_beside_its_diagonal():
    left, right = FIGURES["overlap"]().axes[:2]
    off = ~np.eye(2, dtype=bool)
    for axes, values in ((left, 100 * MATRIX.jaccard), (right, MATRIX.z)):
        shown = np.ma.filled(axes.images[0].get_array().astype(float), np.nan)
        assert np.array_equal(shown[off], values[off]) and np.isnan(np.diag(shown)).all()
    assert [t.get_text() for t in left.texts] == ["50\n(25)"] * 2
    assert [t.get_text() for t in right.texts] == ["+2.5"] * 2


def test_pictures_share_their_colours():
    figure = plots.pixels({"round 0": 5 * np.eye(3), "round 1": np.eye(3)})
    first, second = (axes.images[0] for axes in figure.axes[:2])
    assert np.array_equal(first.get_array(), 5 * np.eye(3))
    assert np.array_equal(second.get_array(), np.eye(3))
    assert first.get_clim() == second.get_clim() == (0, 5)
    assert len(figure.axes) == 3
