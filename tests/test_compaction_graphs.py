"""What goes where branches meet, and from attention."""

import keras
import numpy as np
import pytest
from keras import layers as L
from test_compaction_rules import alive, fill, give, kill, near, small

from keras_lottery.compaction.planning import plan

Input, Model = keras.Input, keras.Model


def left(model):
    return plan(model, alive).context.left


def width(model, name):
    return model.get_layer(name).output.shape[-1]


# Where branches meet --------------------------------------------------------------------------


def two_branches(merge):
    """Two Dense layers a, b of four units, merged, read by out."""
    x = Input((3,))
    a, b = L.Dense(4, name="a")(x), L.Dense(4, name="b")(x)
    model = Model(x, L.Dense(1, name="out")(merge(a, b)))
    fill(model)
    return model


MERGES = {
    "Add": lambda a, b: L.Add()([a, b]),
    "Subtract": lambda a, b: L.Subtract()([a, b]),
    "Multiply": lambda a, b: L.Multiply()([a, b]),
    "Average": lambda a, b: L.Average()([a, b]),
    "Maximum": lambda a, b: L.Maximum()([a, b]),
    "Minimum": lambda a, b: L.Minimum()([a, b]),
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "maximum": keras.ops.maximum,
    "relu of both": lambda a, b: keras.ops.relu(a) + keras.ops.relu(b),
}


@pytest.mark.parametrize("merge", MERGES.values(), ids=MERGES)
def test_a_channel_that_nothing_reads_goes_from_both_branches(merge):
    model = two_branches(merge)
    kill(model.get_layer("out"), inputs=[2])
    made = small(model)
    assert (width(made, "a"), width(made, "b")) == (3, 3)


@pytest.mark.parametrize("merge", MERGES.values(), ids=MERGES)
def test_a_channel_constant_in_both_branches_goes(merge):
    model = two_branches(merge)
    kill(model.get_layer("a"), outputs=[1, 2], bias=2)
    kill(model.get_layer("b"), outputs=[2, 3], bias=0.5)
    assert width(small(model), "a") == 3


def test_add_keeps_a_channel_that_one_branch_needs():
    model = two_branches(MERGES["Add"])
    kill(model.get_layer("a"), outputs=[0, 1], bias=0)
    kill(model.get_layer("b"), outputs=[1, 2], bias=0)
    made = small(model)
    assert (width(made, "a"), width(made, "b")) == (3, 3)


def test_a_zero_factor_lets_the_other_factor_go():
    model = two_branches(MERGES["Multiply"])
    kill(model.get_layer("a"), outputs=[0], bias=0)
    made = small(model)
    assert (width(made, "a"), width(made, "b")) == (3, 3)


def test_a_branch_that_is_read_elsewhere_keeps_the_other():
    x = Input((3,))
    a, b = L.Dense(4, name="a")(x), L.Dense(4, name="b")(x)
    model = Model(x, [L.Dense(1, name="out")(a + b), L.Dense(1, name="other")(a)])
    fill(model)
    kill(model.get_layer("out"), inputs=[0, 1])
    kill(model.get_layer("other"), inputs=[1, 2])
    assert width(small(model), "b") == 3


def test_concatenated_channels_go_one_by_one():
    model = two_branches(lambda a, b: L.Concatenate()([a, b]))
    kernel = np.arange(1, 9)
    kernel[[1, 6, 7]] = 0
    give(model.get_layer("out"), kernel)
    made = small(model)
    assert (width(made, "a"), width(made, "b")) == (3, 2)
    near(made.get_layer("out").kernel, [[1], [3], [4], [5], [6]])


def test_tensors_joined_in_space_lose_the_same_channels():
    x = Input((4, 3))
    a, b = L.Dense(4, name="a")(x), L.Dense(4, name="b")(x)
    model = Model(x, L.Conv1D(2, 3, name="out")(L.Concatenate(axis=1)([a, b])))
    fill(model)
    kill(model.get_layer("out"), inputs=[1, 3])
    made = small(model)
    assert (width(made, "a"), width(made, "b")) == (2, 2)


def test_a_gate_over_channels_goes_with_them():
    x = Input((5, 5, 2))
    y = L.Conv2D(4, 2, name="body")(x)
    gate = L.Dense(4, "sigmoid", name="gate")(L.GlobalAveragePooling2D(keepdims=True)(y))
    model = Model(x, L.Conv2D(1, 1, name="out")(L.Multiply()([y, gate])))
    fill(model)
    kill(model.get_layer("out"), inputs=[1])
    kill(model.get_layer("gate"), inputs=[1])
    made = small(model)
    assert (width(made, "body"), width(made, "gate")) == (3, 3)


def test_one_channel_spread_over_several_stays_and_says_so():
    x = Input((3,))
    model = Model(x, L.Dense(2)(L.Multiply(name="spread")([L.Dense(4)(x), L.Dense(1)(x)])))
    fill(model)
    assert left(model) == {"spread": "it spreads one channel over several"}
    small(model)


# Attention ------------------------------------------------------------------------------------


def attention(heads=2, size=2, inputs=3, call=lambda mha, x: mha(x, x), **options):
    x = Input((4, inputs))
    mha = L.MultiHeadAttention(heads, size, name="mha", **options)
    model = Model(x, call(mha, L.Dense(inputs, name="before")(x)))
    fill(model)
    return model, mha


def edit(variable, *cuts, value=0.0):
    array = variable.numpy()
    for cut in cuts:
        array[cut] = value
    variable.assign(array)


ALL = slice(None)


def test_a_head_that_nothing_reads_goes():
    model, mha = attention(heads=3)
    edit(mha.output_dense.kernel, 1)
    made = small(model).get_layer("mha")
    assert (made.num_heads, made.key_dim, made.value_dim) == (2, 2, 2)
    assert np.array_equal(made.query_dense.kernel, mha.query_dense.kernel.numpy()[:, [0, 2]])


def test_a_constant_value_moves_into_the_output():
    model, mha = attention(heads=2, size=1)
    edit(mha.value_dense.kernel, (ALL, 1))
    edit(mha.value_dense.bias, 1, value=2.0)
    made = small(model).get_layer("mha")
    assert made.num_heads == 1
    near(
        made.output_dense.bias,
        mha.output_dense.bias.numpy() + 2 * mha.output_dense.kernel.numpy()[1, 0],
    )


def test_key_parts_that_compare_nothing_go_and_the_scale_stays():
    model, mha = attention(heads=2, size=4)
    edit(mha.key_dense.kernel, (ALL, ALL, 0), (ALL, 0, 2))  # constant keys
    edit(mha.query_dense.kernel, (ALL, ALL, 1))  # zero queries
    edit(mha.query_dense.bias, (ALL, 1))
    made = small(model).get_layer("mha")
    assert (made.num_heads, made.key_dim) == (2, 2)
    assert not made.query_dense.kernel.numpy()[:, 0, 1].any()  # head 0 needs only one part


def test_a_head_whose_scores_are_constant_still_takes_the_mean():
    model, mha = attention(heads=1, size=3)
    edit(mha.key_dense.kernel, ALL)
    made = small(model).get_layer("mha")
    assert (made.num_heads, made.key_dim, made.value_dim) == (1, 1, 3)


def test_what_only_unread_parts_read_goes_from_the_layer_before():
    model, mha = attention(heads=1, size=2, inputs=3)
    for dense in (mha.query_dense, mha.key_dense, mha.value_dense):
        edit(dense.kernel, 1)
    assert width(small(model), "before") == 2


def test_constants_before_attention_move_into_its_projections():
    model, _ = attention(heads=2, use_bias=False)
    kill(model.get_layer("before"), outputs=[0], bias=2)
    made = small(model)
    assert width(made, "before") == 2
    assert made.get_layer("mha").query_dense.bias is not None


def test_attention_over_another_sequence_by_name():
    x, y = Input((4, 3)), Input((5, 2))
    q, k, v = L.Dense(4, name="q")(x), L.Dense(4, name="k")(y), L.Dense(4, name="v")(y)
    mha = L.MultiHeadAttention(2, 3, value_dim=2, output_shape=5)
    model = Model([x, y], mha(q, key=k, value=v))
    fill(model)
    edit(mha.query_dense.kernel, 0)
    edit(mha.key_dense.kernel, 1, 2)
    edit(mha.value_dense.kernel, 1, 2, 3)
    made = small(model)
    assert [width(made, name) for name in "qkv"] == [3, 2, 1]


@pytest.mark.parametrize("causal", [False, True])
def test_attention_under_a_causal_mask(causal):
    model, mha = attention(call=lambda mha, x: mha(x, x, use_causal_mask=causal))
    edit(mha.value_dense.kernel, (ALL, 0, 1))
    edit(mha.output_dense.kernel, (1, 0))
    assert small(model).get_layer("mha").value_dim == 1


WORDS = np.array([[1, 2, 3, 0, 0], [0, 0, 4, 1, 2], [3, 0, 0, 0, 0]])


def masked_attention(call):
    words = Input((5,), dtype="int32")
    x = L.Embedding(6, 4, mask_zero=True)(words)
    mha = L.MultiHeadAttention(2, 2, name="mha")
    model = Model(words, call(mha, x))
    fill(model)
    return model, mha


def test_a_constant_value_stays_where_all_positions_may_be_masked():
    model, mha = masked_attention(lambda mha, x: mha(x, x))
    edit(mha.value_dense.kernel, (ALL, 0))  # its bias is not zero
    edit(mha.value_dense.kernel, (ALL, 1, 0))
    edit(mha.value_dense.bias, (1, 0))
    made = small(model, WORDS).get_layer("mha")
    assert (made.num_heads, made.value_dim) == (2, 2)


def test_a_constant_value_stays_under_a_sliding_window():
    x, y = Input((9, 3)), Input((4, 3))  # the last of nine see none of four
    mha = L.MultiHeadAttention(1, 2, name="mha", sliding_window=2)
    model = Model([x, y], mha(x, y))
    fill(model)
    edit(mha.value_dense.kernel, ALL)
    assert small(model).get_layer("mha").value_dim == 2


def test_a_zero_value_goes_under_any_mask():
    model, mha = masked_attention(lambda mha, x: mha(x, x, use_causal_mask=True))
    edit(mha.value_dense.kernel, (ALL, 0))
    edit(mha.value_dense.bias, 0)
    assert small(model, WORDS).get_layer("mha").num_heads == 1


def test_a_mask_given_to_attention_is_no_input_of_it():
    x, mask = Input((4, 3)), Input((4, 4), dtype="bool")
    mha = L.MultiHeadAttention(2, 2, name="mha")
    model = Model([x, mask], mha(x, x, attention_mask=mask))
    fill(model)
    edit(mha.value_dense.kernel, (ALL, 0))
    edit(mha.output_dense.kernel, 1)
    masks = np.random.default_rng(0).random((3, 4, 4)) < 0.4
    made = small(model, [np.ones((3, 4, 3), "float32"), masks])
    assert made.get_layer("mha").num_heads == 1
    assert left(model) == {}


def test_computed_masks_keep_what_they_are_computed_from():
    x = Input((4, 3))
    scores = L.Dense(4, "sigmoid", name="scores")(x)
    model = Model(x, L.Dense(2)(L.MultiHeadAttention(1, 2)(x, x, attention_mask=scores)))
    fill(model)
    kill(model.get_layer("scores"), outputs=[1, 2], bias=0)
    assert width(small(model), "scores") == 4


@pytest.mark.parametrize(
    ("call", "options", "why"),
    [
        (lambda mha, x: mha(x, x, return_attention_scores=True)[0], {}, "it is called with"),
        (lambda mha, x: mha(x, x) + mha(x, x), {}, "it is called more than once"),
        (lambda mha, x: mha(x, x, None, x), {}, "it is called with constants"),
        (lambda mha, x: mha(x, x, x, x), {}, "its masks are not given by name"),
        (lambda mha, x: mha(x, x), {"use_gate": True}, "it has a gate"),
    ],
)
def test_attention_stays_whole_and_says_why(call, options, why):
    model, mha = attention(call=call, **options)
    edit(mha.output_dense.kernel, 1)
    assert left(model)["mha"].startswith(why)
    assert small(model).get_layer("mha").num_heads == 2
