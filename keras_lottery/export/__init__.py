"""From a sparse model to what is deployed: smaller files, smaller models, and their measure.

>>> import keras
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
>>> compact(model, verbose=0).count_params()
10
"""

from keras_lottery.export.compacting import CompactReport, LayerChange, compact
from keras_lottery.export.keras_file import keras
from keras_lottery.export.measuring import Measurement, Measurements, Spread, measure
from keras_lottery.export.sparse_saved_model import saved_model
from keras_lottery.export.tflite import litert

__all__ = [
    "CompactReport",
    "LayerChange",
    "Measurement",
    "Measurements",
    "Spread",
    "compact",
    "keras",
    "litert",
    "measure",
    "saved_model",
]
