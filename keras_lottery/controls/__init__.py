"""Controls: what a ticket is compared with. Ticket in, new ticket out; seeded where random.

`NAMED` holds the controls that give a `Ticket`, `FREEZING` those whose pruned weights are
frozen at values other than 0, which give a `Frozen`. A control takes what it names: the
`ticket`, a `model` to draw from, a `seed`, `dense` (the ticket of round 0 of the same
search, which knows all values at the rewind point), `trained` (the ticket of round 0 with
the trained weights in their place), and options of its own.

>>> sorted(FREEZING)
['freeze_increased', 'freeze_init', 'freeze_init_zero_all', 'freeze_reinit']
"""

from collections.abc import Callable

from keras_lottery.controls.actions import (
    Frozen,
    freeze_increased,
    freeze_init,
    freeze_init_zero_all,
    freeze_reinit,
)
from keras_lottery.controls.initial import noise, reinitialize, resample_survivors
from keras_lottery.controls.positions import random_mask, shuffle_mask
from keras_lottery.controls.scored import invert_scores, one_shot, prune_at_init_magnitude
from keras_lottery.controls.signs import (
    keep_signs,
    random_signed_constant,
    signed_constant,
    signed_reshuffle,
)
from keras_lottery.tickets import Ticket

NAMED: dict[str, Callable[..., Ticket]] = {
    "reinitialize": reinitialize,
    "random_mask": random_mask,
    "shuffle_mask": shuffle_mask,
    "resample_survivors": resample_survivors,
    "noise": noise,
    "keep_signs": keep_signs,
    "signed_reshuffle": signed_reshuffle,
    "signed_constant": signed_constant,
    "random_signed_constant": random_signed_constant,
    "invert_scores": invert_scores,
    "one_shot": one_shot,
    "prune_at_init_magnitude": prune_at_init_magnitude,
}

FREEZING: dict[str, Callable[..., Frozen]] = {
    "freeze_init": freeze_init,
    "freeze_increased": freeze_increased,
    "freeze_init_zero_all": freeze_init_zero_all,
    "freeze_reinit": freeze_reinit,
}

__all__ = [
    "FREEZING",
    "NAMED",
    "Frozen",
    "freeze_increased",
    "freeze_init",
    "freeze_init_zero_all",
    "freeze_reinit",
    "invert_scores",
    "keep_signs",
    "noise",
    "one_shot",
    "prune_at_init_magnitude",
    "random_mask",
    "random_signed_constant",
    "reinitialize",
    "resample_survivors",
    "shuffle_mask",
    "signed_constant",
    "signed_reshuffle",
]
