"""The one error of the message contract.

What a process answers when it meets one (status, envelope) is left to that process.
"""

from __future__ import annotations


class ContractError(ValueError):
    """A message or figure that the contract does not allow.

    `code` is stable and for machines, `field` is the path of the offending value (`keys[3].mac`) or "".
    """

    def __init__(self, code: str, message: str, *, field: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.field = field
