"""300 random sparse models as SavedModels: loaded again, they give the same output."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from random_models import for_random_models

import keras_lottery as kl


def for_any_batch(model):
    """The graph for batches of any size: for a known one TensorFlow adds in another order."""
    specs = [tf.TensorSpec((None, *t.shape[1:]), t.dtype) for t in model.inputs]
    return tf.function(model, input_signature=[specs if len(specs) > 1 else specs[0]])


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis")
def test_300_random_models_export_and_reload_to_the_same_output(tmp_path):
    packed = []

    def check(model, x):
        path = kl.export.saved_model(model, tmp_path / "served", overwrite=True)
        served = tf.saved_model.load(str(path))
        right = keras.tree.flatten(for_any_batch(model)(x))
        for a, b in zip(right, keras.tree.flatten(served.serve(x)), strict=True):
            np.testing.assert_array_equal(b, a)
        packed.append(hasattr(served, "packed"))

    for_random_models(check)
    assert len(packed) >= 300
    assert sum(packed) >= 150
