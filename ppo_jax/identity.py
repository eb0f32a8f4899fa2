"""Whether something stored belongs to the run that asks for it.

A run is described by everything that its numbers depend on, as JSON. Two descriptions that do
not differ are of the same run: its stored results are its own, and it can be continued.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ppo_jax.files import plain


class Difference(NamedTuple):
    """Where two descriptions first differ.

    Attributes:
      name: of the entry, with dots: ``config.agent.num_envs``.
      stored, asked: its values; None where one lacks it.
    """

    name: str
    stored: Any
    asked: Any


def first_difference(stored: Any, asked: Any) -> Difference | None:
    """Return where two descriptions first differ, in the order of their entries, or None.

    >>> first_difference({"seeds": {"root": 0}}, {"seeds": {"root": 1}})
    Difference(name='seeds.root', stored=0, asked=1)
    >>> first_difference({"steps": [1, 2]}, {"steps": (1, 2)}) is None
    True
    """
    return _first_difference(plain(stored), plain(asked), "")


def _first_difference(stored: Any, asked: Any, name: str) -> Difference | None:
    if stored == asked:
        return None
    if not (isinstance(stored, Mapping) and isinstance(asked, Mapping)):
        return Difference(name, stored, asked)
    if name and stored.keys() != asked.keys():  # Another kind of thing, better shown whole.
        return Difference(name, stored, asked)
    for key in {**stored, **asked}:
        inner = f"{name}.{key}" if name else key
        found = _first_difference(stored.get(key), asked.get(key), inner)
        if found is not None:
            return found
    return None


def digest(description: Any) -> int:
    """Return a number from 0 to 2**32 - 1 that equal descriptions share.

    Others differ, but for one pair in four billion.

    >>> digest({"gamma": 0.99}) == digest({"gamma": 0.98})
    False
    """
    text = json.dumps(plain(description), sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
