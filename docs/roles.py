"""References in docstrings, as ``:class:`tune.Settings```, become code in the site."""

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":[a-z]+:`(~?)([^`]+)`")


class Roles(Extension):
    """An extension of Griffe, which reads the docstrings."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            text = ROLE.sub(_as_code, obj.docstring.value)
            obj.docstring.value = re.sub(r":?::$", ":", text, flags=re.MULTILINE)


def _as_code(role: re.Match[str]) -> str:
    name = role[2].rpartition(".")[2] if role[1] else role[2]
    return f"`{name}`"
