"""Which members an object of a body may have, at any depth: whatever is in no table is refused by its path.

What a member may say is left to `prompt_checks` and `named_checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.gateway.errors import GatewayError


class Members:
    """The members of an object: `plain` ones hold no objects or open ones, such as schemas and arguments.

    `inside` is what is known of the others, also of each item of a list.
    """

    def __init__(self, *plain: str, **inside: Members) -> None:
        self._inside: Mapping[str, Members] = inside
        self._names = frozenset(plain) | inside.keys()

    def check(self, given: Any, param: str) -> None:
        """Check an object or a list of them; values of other types are not judged here.

        Raises: GatewayError 400 naming the path of an unknown member, or of a list in a list.
        """
        if isinstance(given, dict):
            # The whole set at once: this runs for every part of every call.
            if not given.keys() <= self._names:
                name = next(name for name in given if name not in self._names)
                message = f"unknown parameter '{param}.{name:.60}'; remove it"
                raise GatewayError(400, "unknown_parameter", message, param=f"{param}.{name:.60}")
            for name, members in self._inside.items():
                if name in given:
                    members.check(given[name], f"{param}.{name}")
        elif isinstance(given, list):
            for index, item in enumerate(given):
                where = f"{param}[{index}]"
                if isinstance(item, list):
                    raise GatewayError(400, "invalid_value", f"{where} must be no list", param=where)
                self.check(item, where)
