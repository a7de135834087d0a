"""300 random sparse models as SavedModels: loaded again, they give the same output."""

import keras
import numpy as np
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_compaction_random import grow, inputs_of, kill

import keras_lottery as kl


def test_300_random_models_export_and_reload_to_the_same_output(tmp_path):
    dense_bytes, sparse_bytes = [], []

    @settings(
        max_examples=300, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data(), st.integers(3, 9), st.integers(0, 2**32 - 1))
    def check(data, steps, seed):
        keras.utils.clear_session(free_memory=False)
        rng = np.random.default_rng(seed)
        model = grow(lambda choices: data.draw(st.sampled_from(choices)), steps)
        kill(model, rng)
        x = inputs_of(model, rng)
        path = kl.export.saved_model(model, tmp_path / "served", overwrite=True)
        served = tf.saved_model.load(str(path))
        right = keras.tree.flatten(tf.function(model)(x))
        for a, b in zip(right, keras.tree.flatten(served.serve(x)), strict=True):
            np.testing.assert_array_equal(b, a)
        files = (path / "variables").iterdir()
        sparse_bytes.append(sum(file.stat().st_size for file in files))
        dense_bytes.append(sum(v.numpy().nbytes for v in model.variables))

    check()
    assert len(sparse_bytes) >= 300
