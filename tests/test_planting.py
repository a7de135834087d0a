"""Planted tickets: the problems' networks, the ticket in the mother, the scoreboard."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_lottery as kl
from keras_lottery.strong import planting, pruners, seeking
from keras_lottery.strong.planting import compute_masked, plant
from keras_lottery.strong.problems import circle, compute, helix, relu

PROBLEMS = {"relu": relu(), "circle": circle(), "helix": helix()}
DEPTHS = [2, 3, 4, 5, 7]
named = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


def points(problem, n=500, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, problem.inputs))


def parts(planted):
    """Kernels and biases of the mother, and their masks."""
    return planted.model.get_weights(), list(planted.masks.values())


def test_circle_has_four_classes_by_radius():
    x = np.array([[0, 0], [0.5, 0], [0, -0.75], [-0.6, 0.6], [1, 1]])
    assert circle().function(x).argmax(1).tolist() == [0, 1, 2, 3, 3]
    # Lines of r^2 with the slopes 0, 1, 2, 3, crossing at .2, .5 and .7.
    assert np.allclose(circle().function(np.array([[0.5, 0]])), [[0, 0.05, -0.2, -0.65]])


def test_helix_begins_and_ends_where_the_formula_says():
    assert np.allclose(helix().function(np.array([[-1.0], [1.0]])), [[0.25, 0, 0.25], [1, 0, 1]])


@named
def test_data_are_seeded(problem):
    x, y = problem.data(50, seed=3, noise=0.1)
    again = problem.data(50, seed=3, noise=0.1)
    assert np.array_equal(x, again[0]) and np.array_equal(y, again[1])
    assert not np.array_equal(x, problem.data(50, seed=4, noise=0.1)[0])
    assert x.shape == (50, problem.inputs) and np.abs(x).max() <= 1
    assert y.shape == ((50,) if problem.classes else (50, problem.outputs))


def test_noise_of_a_regression_is_normal():
    x, y = helix().data(4000, seed=0, noise=0.5)
    errors = y - helix().function(x)
    assert abs(errors.std() - 0.5) < 0.02 and abs(errors.mean()) < 0.02


def test_noise_of_classes_gives_the_class_beside():
    x, y = circle().data(4000, seed=0, noise=0.3)
    exact = circle().function(x.astype(float)).argmax(1)
    assert abs(np.mean(y != exact) - 0.3) < 0.03
    assert set(np.abs(y - exact)) == {0, 1}


@pytest.mark.parametrize("depth", DEPTHS)
def test_relu_network_is_exact(depth):
    x = points(relu())
    assert np.array_equal(compute(relu().network(depth), x), np.maximum(x, 0))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("knots", [30, 60])
def test_helix_network_errs_as_linear_pieces_do(depth, knots):
    x, network = points(helix()), helix(knots).network(depth)
    # |f''| <= (3 pi)^2 (2 + t) / 8 pi with t <= 8 pi; pieces of width 2 / knots.
    bound = (3 * np.pi) ** 2 * (2 + 8 * np.pi) / (8 * np.pi) * (2 / knots) ** 2 / 8
    error = np.abs(compute(network, x) - helix().function(x))
    assert bound / 100 < error.max() <= bound
    assert error[:, 2].max() < 1e-12  # a line
    ends = np.linspace(-1, 1, knots + 1)[:, None]
    assert np.allclose(compute(network, ends), helix().function(ends), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("depth", "widths"),
    [
        (2, (2 / 10, 2 / 10)),
        (3, (1 / 10, 1 / 10)),
        (4, (1 / 10, 1 / 10)),
        (5, (2**0.5 / 13, 0.5**0.5 / 7)),
        (6, (2**0.5 / 14, 2**0.5 * np.sin(np.pi / 8) / 6)),
    ],
)
def test_circle_network_errs_as_linear_pieces_do(depth, widths):
    x = points(circle(), 4000)
    # A square interpolated over pieces of width h lies at most h^2 / 4 above, never below.
    error = compute(circle().network(depth), x) - circle().function(x)
    bound = sum(h**2 / 4 for h in widths) * np.arange(4)
    assert error.min() > -1e-12 and (error.max(0) <= bound + 1e-12).all()
    assert error.max() > 0.7 * bound[3]


@settings(deadline=None, max_examples=50)
@given(
    depth=st.integers(2, 8),
    x1=st.floats(-1, 1),
    x2=st.floats(-1, 1),
    knots=st.integers(1, 12),
)
def test_circle_network_sees_mirrored_points_alike(depth, x1, x2, knots):
    mirrored = np.array([[x1, x2], [x2, x1], [x1, -x2], [-x2, x1]])
    outputs = compute(circle(knots).network(depth), mirrored)
    if depth == 2:  # its kinks do not lie symmetrically unless 0 is one
        outputs = outputs[:2]
    assert np.allclose(outputs, outputs[0], rtol=0, atol=1e-9)


def test_networks_are_sparse():
    def count(network):
        return sum(int(np.count_nonzero(kernel)) for kernel, _ in network)

    assert count(relu().network(5)) == 5
    assert count(helix(30).network(5)) == 3 + 30 + (30 + 30 + 1)
    # split, add, fold; 13 kinks of one coordinate, 7 that read two units; three classes.
    assert count(circle(10).network(5)) == 4 + 4 + 6 + (13 + 2 * 7) + 20 * 3


def test_unit_goes_where_the_angle_is_least():
    wanted = np.array([[1.0], [1.0], [0.0]])  # bias 1, weights 1 and 0: the last is not compared
    there = np.array([[2.0, 1.0, -1.0], [2.0, 2.0, -1.0], [9.0, 0.0, 0.0]])
    chosen, factors = planting._match(wanted, there, 0)
    assert chosen.tolist() == [0] and factors == pytest.approx([0.5])


def test_two_units_never_share_one_of_the_mother():
    wanted = np.array([[0.0, 0.0], [1.0, 1.0]])
    there = np.array([[0.0, 1.0, 0.0], [2.0, 1.0, -3.0]])
    chosen, factors = planting._match(wanted, there, 0)
    assert chosen.tolist() == [0, 1] and np.allclose(factors, [0.5, 0.5])
    with pytest.raises(ValueError, match="no free one points to the side of unit 1"):
        planting._match(wanted, there[:, [0, 2]], 0)


@named
@pytest.mark.parametrize("depth", DEPTHS)
def test_masked_mother_computes_the_target(problem, depth):
    for seed in range(2):
        planted = plant(problem, depth, width=60, seed=seed)
        x = points(problem, seed=seed)
        assert np.abs(compute_masked(planted, x) - compute(planted.target, x)).max() < 1e-5


@named
def test_masks_of_kernels_alone_compute_the_same(problem):
    planted = plant(problem)
    x = points(problem)
    model = seeking.masked_copy(planted, planted.kernels)
    outputs = keras.ops.convert_to_numpy(model(x)) * planted.scale
    assert np.abs(outputs - compute(planted.target, x)).max() < 1e-5
    assert kl.density(model) == planted.density


@named
def test_density_counts_the_kernels_of_the_ticket(problem):
    planted = plant(problem, depth=4, width=40)
    alive = sum(int(np.count_nonzero(kernel)) for kernel, _ in planted.target)
    size = problem.inputs * 40 + 2 * 40 * 40 + 40 * problem.outputs
    assert planted.density == alive / size
    assert planted.scale > 0 and all(np.isfinite(w).all() for w in planted.model.get_weights())


def test_only_planted_weights_are_written():
    a, b = plant(helix(5), seed=1), plant(helix(6), seed=1)
    (us, in_us), (vs, in_vs) = parts(a), parts(b)
    for u, v, in_u, in_v in zip(us, vs, in_us, in_vs, strict=True):
        if u.ndim == 2:
            assert not ((u != v) & ~in_u & ~in_v).any()
    assert (us[-2] != vs[-2]).any()


def test_mother_is_drawn_as_the_paper_says():
    weights, _ = parts(plant(relu(), depth=5, width=300, seed=0))
    spread = [np.sqrt(2 / 1), np.sqrt(2 / 300), np.sqrt(2 / 300)]
    for i, std in enumerate(spread):
        assert abs(weights[2 * i].std() / std - 1) < 0.1
        assert abs(weights[2 * i + 1].std() / np.prod(spread[: i + 1]) - 1) < 0.1


def test_same_seed_gives_the_same_mother():
    one, two, other = (plant(circle(), seed=s) for s in (5, 5, 6))
    same = [np.array_equal(a, b) for a, b in zip(parts(one)[0], parts(two)[0], strict=True)]
    assert all(same) and one.scale == two.scale
    assert not np.array_equal(parts(one)[0][2], parts(other)[0][2])


def test_planted_ticket_saves_and_loads_as_a_ticket(tmp_path):
    planted = plant(circle(), width=40)
    kl.Ticket.of(planted.model, planted.masks).save(tmp_path / "t.safetensors")
    model = keras.models.clone_model(planted.model)
    kl.Ticket.load(tmp_path / "t.safetensors").apply(model)
    x = points(circle())
    outputs = keras.ops.convert_to_numpy(model(x)) * planted.scale
    assert np.abs(outputs - compute(planted.target, x)).max() < 1e-5


def test_bad_arguments_of_plant_are_explained():
    with pytest.raises(ValueError, match=r"a layer of 30 units.*width=29"):
        plant(helix(), width=29)
    with pytest.raises(ValueError, match=r"at least 2 layers\. Received: depth=1"):
        plant(relu(), depth=1)
    with pytest.raises(ValueError, match="`knots` must be at least 1"):
        circle(0)
    with pytest.raises(ValueError, match=r"`noise`.*Received: 1.5"):
        circle().data(5, noise=1.5)
    with pytest.raises(ValueError, match=r"`n` must be at least 1\. Received: 0"):
        relu().data(0)


def test_a_narrow_mother_may_have_no_unit_to_plant_into():
    worked = 0
    for seed in range(12):  # one unit a layer: its weight is positive in half of all draws
        try:
            worked += plant(relu(), depth=2, width=1, seed=seed).density == 1
        except ValueError as error:
            assert "Take a larger `width` or another `seed`" in str(error)
    assert 0 < worked < 12


def small(**options):
    return {"samples": 200, "epochs": 1, "verbose": 0, **options}


def test_scoreboard_knows_a_pruner_that_finds_the_ticket():
    mother = plant(circle(), width=40)
    seen = []

    def oracle(model, density, data):
        seen.append((model.compiled, density, len(data[0])))
        return mother.kernels

    rows = seeking.seek(mother, {"oracle": oracle}, [0.1, 0.2], **small())
    assert seen == [(True, 0.1, 200), (True, 0.2, 200)]
    planted, dense, first, second = rows
    assert (planted.pruner, dense.pruner, first.pruner) == ("planted", "dense", "oracle")
    assert first.recall == 1 and first.density == mother.density == planted.density
    assert first.strong == second.strong == planted.strong > 0.97
    assert first.weak == planted.weak
    assert dense.density == 1 and dense.strong < 0.7


def test_scoreboard_runs_each_criterion():
    mother = plant(relu(), depth=3, width=10)
    before = mother.model.get_weights()
    names = ["random", "magnitude", "snip", "gradient"]
    rows = seeking.seek(mother, names, [0.1], **small())
    assert [r.pruner for r in rows] == ["planted", "dense", *names]
    assert [r.density for r in rows[2:]] == [12 / 120] * 4
    pairs = zip(before, mother.model.get_weights(), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_scoreboard_of_several_mothers_is_seeded():
    mothers = [plant(relu(), depth=2, width=10, seed=s) for s in range(2)]
    rows = seeking.seek(mothers, ["random"], [0.5], **small())
    assert [r.repeat for r in rows] == [0, 0, 0, 1, 1, 1]
    assert rows == seeking.seek(mothers, ["random"], [0.5], **small())
    assert rows[2].strong != rows[5].strong


def test_scoreboard_asks_for_the_planted_density_by_default():
    mother = plant(relu(), depth=3, width=10)
    rows = seeking.seek(mother, ["magnitude"], **small())
    assert [r.asked for r in rows[2:]] == [mother.density, 0.01, 0.1, 0.5]


def test_recall_is_the_fraction_of_planted_weights_alive():
    mother = plant(relu(), depth=3, width=10)

    def lose_one(model, density, data):
        masks = {p: m.copy() for p, m in mother.kernels.items()}
        masks[next(iter(masks))][:] = False
        return masks

    row = seeking.seek(mother, {"lose_one": lose_one}, [0.5], **small())[-1]
    assert row.recall == pytest.approx(2 / 3)


def test_iterative_pruner_reaches_its_density_in_equal_steps():
    mother = plant(relu(), depth=3, width=10)
    data = relu().data(100)
    model = seeking.compiled(seeking.masked_copy(mother, {}), relu())
    masks = pruners.iterative(rounds=2, epochs=1)(model, 0.25, data)
    assert kl.density(model) == 0.25
    assert sum(int(m.sum()) for m in masks.values()) == 30


def test_searched_pruner_leaves_the_weights_and_keeps_its_density():
    mother = plant(relu(), depth=3, width=10)
    model = seeking.compiled(seeking.masked_copy(mother, {}), relu())
    masks = pruners.searched(epochs=1, scope="global")(model, 0.25, relu().data(100))
    assert sum(int(m.sum()) for m in masks.values()) == 30
    assert list(masks) == list(mother.kernels)
    pairs = zip(mother.model.get_weights(), model.get_weights(), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_random_pruner_follows_the_seed():
    mother = plant(relu(), depth=3, width=10)
    data = relu().data(20)

    def draw(seed):
        keras.utils.set_random_seed(seed)
        model = seeking.masked_copy(mother, {})
        masks = pruners.one_shot("random")(model, 0.5, data)
        return np.concatenate([m.ravel() for m in masks.values()])

    assert np.array_equal(draw(1), draw(1)) and not np.array_equal(draw(1), draw(2))


def test_a_regression_is_scored_up_to_scale():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[3.0]])])
    x = np.array([[-1.0], [1.0]], "float32")
    assert seeking.score(model, relu(), (x, 0.5 * x)) == pytest.approx(0)
    assert seeking.score(model, relu(), (x, np.array([[0.0], [1.0]]))) == pytest.approx(0.25)
    model.set_weights([np.array([[0.0]])])
    assert seeking.score(model, relu(), (x, 0.5 * x)) == pytest.approx(0.25)


def test_a_small_learning_rate_keeps_the_planted_ticket_good():
    mother = plant(circle(), depth=3, width=40)
    data = circle().data(1000)
    model = seeking.masked_copy(mother, mother.masks)
    seeking.train_ticket(model, circle(), data, epochs=1, rate=1e-5)
    assert seeking.score(model, circle(), data) > 0.97


def test_outputs_are_trained_at_the_size_of_the_targets():
    outputs = np.array([[0.01], [-0.01]])
    assert seeking._factor(outputs, np.array([[3.0], [3.0]]), False) == pytest.approx(300)
    assert seeking._factor(0 * outputs, np.array([[3.0], [3.0]]), False) == 1
    # 99 of 100 right: least at a margin of log 99 = 4.6, and 0.02 * 200 is the nearest.
    logits = np.tile([[0.01, -0.01]], (100, 1))
    assert seeking._factor(logits, np.array([0] * 99 + [1]), True) == pytest.approx(200)
    assert seeking._factor(logits, np.array([1] * 100), True) == pytest.approx(100)


@named
def test_training_lowers_the_loss_and_keeps_the_pruned_at_zero(problem):
    mother = plant(problem, depth=3, width=60)
    data = problem.data(1000)
    keep = {p: np.arange(m.size).reshape(m.shape) % 2 == 0 for p, m in mother.kernels.items()}
    model = seeking.masked_copy(mother, keep)
    before = seeking.score(model, problem, data)
    seeking.train_ticket(model, problem, data, epochs=5)
    after = seeking.score(model, problem, data)
    assert after > before if problem.classes else after < before
    for variable in model.trainable_variables:
        if variable.path in keep:
            assert not variable.numpy()[~keep[variable.path]].any()


def test_an_emptied_layer_is_scored_and_trained_without_nan():
    mother = plant(circle(), depth=3, width=40)
    none = {p: np.zeros_like(m) for p, m in mother.kernels.items()}
    row = seeking.seek(mother, {"none": lambda model, density, data: none}, [0.5], **small())[-1]
    assert row.density == row.recall == 0 and np.isfinite([row.strong, row.weak]).all()


def test_show_prints_means_over_the_mothers(capsys):
    rows = [seeking.Found("relu", "snip", i, 0.5, 0.5, 0.25, 0.0, 1.0 - i) for i in range(2)]
    seeking.show(rows)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["problem", "pruner", "density", "strong", "weak", "recall"]
    assert lines[1].split() == ["relu", "snip", "50.00%", "0.25±0", "0±0", "0.5±0.5"]


def test_bad_arguments_of_seek_are_explained():
    mother = plant(relu(), depth=2, width=10)
    with pytest.raises(ValueError, match=r"`densities` must lie in \(0, 1\]. Received: \[2\]"):
        seeking.seek(mother, ["random"], [2])
    with pytest.raises(ValueError, match=r"Received: \['best'\]"):
        seeking.seek(mother, ["best"])
    with pytest.raises(ValueError, match="callable"):
        seeking.seek(mother, {"snip": "snip"})
    with pytest.raises(ValueError, match="under a name other than"):
        seeking.seek(mother, {"planted": pruners.one_shot("snip")})
    with pytest.raises(ValueError, match="at least one mother"):
        seeking.seek([])
    with pytest.raises(ValueError, match=r"`rounds` must be at least 1\. Received: 0"):
        pruners.iterative(rounds=0)
