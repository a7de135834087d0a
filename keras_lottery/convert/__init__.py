"""Tickets from PyTorch and back: open_lth's files, and `torch.nn.utils.prune`'s state dicts.

Needs no torch: states are dicts of NumPy arrays, or `.npz` and `.safetensors` files.
"""

from keras_lottery.convert.doors import from_open_lth, from_torch_prune, to_torch_prune

__all__ = ["from_open_lth", "from_torch_prune", "to_torch_prune"]
