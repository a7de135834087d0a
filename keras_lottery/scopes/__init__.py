"""Scopes decide where scores compete, and so which weights survive. NumPy only.

A scope is a callable `(scores, masks, keep) -> masks`. `keep(alive, total)` says
how many of a competing group survive. Every scope here keeps three promises:

- exact counts: where single weights compete, a group ends with exactly
  `keep(alive, total)` alive weights; `NM` with that or what its pattern leaves, if that
  is fewer; whole blocks and channels with the number of weights that comes nearest;
- stated ties: of equal scores the earlier position survives, paths in sorted
  order and positions in memory order, whatever the order of the dicts;
- nested masks: what is pruned stays pruned.
"""

from collections.abc import Callable

from keras_lottery.scopes.ranking import NotFiniteError, Scope, Scores, keep_best
from keras_lottery.scopes.structured import NM, Block, Channels, is_m_by_n
from keras_lottery.scopes.unstructured import ERK, Global, Layerwise

__all__ = [
    "ERK",
    "NAMED",
    "NM",
    "Block",
    "Channels",
    "Global",
    "Layerwise",
    "NotFiniteError",
    "Scope",
    "Scores",
    "is_m_by_n",
    "keep_best",
    "resolve",
]

NAMED: dict[str, Callable[[], Scope]] = {
    "global": Global,
    "layerwise": Layerwise,
    "erk": ERK,
    "nm": NM,
    "block": Block,
    "channels": Channels,
}


def resolve(scope: str | Scope) -> Scope:
    """The scope of a name, or the scope itself.

    Raises:
        ValueError: If the name is unknown; the message lists the valid ones.

    Example:

    >>> resolve("erk")
    ERK()
    """
    if isinstance(scope, str) and scope in NAMED:
        return NAMED[scope]()
    if callable(scope):
        return scope
    raise ValueError(
        f"`scope` must be one of {sorted(NAMED)} or a `keras_lottery.scopes` object. "
        f"Received: {scope!r}"
    )
