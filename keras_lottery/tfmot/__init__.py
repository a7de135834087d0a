"""For users of tfmot and tf_keras (Keras 2): the lottery on models that tfmot wraps.

Needs the extra `tfmot`: pip install 'keras-lottery[tfmot]'.
"""

from keras_lottery.tfmot.callback import LotteryCallback
from keras_lottery.tfmot.crossing import put, ticket_of, to_keras3
from keras_lottery.tfmot.wrapping import wrap

__all__ = ["LotteryCallback", "put", "ticket_of", "to_keras3", "wrap"]
