"""The root of this package's coded errors.

It leaves each error to the module of its noun, and HTTP answers to the caller.
"""

from typing import ClassVar


class RegistryError(Exception):
    """A refusal a person can act on: `code` is stable, the texts name the value, the limit and the next step."""

    code: ClassVar[str] = "registry_refused"

    def __init__(self, en: str, zh: str, *, field: str | None = None) -> None:
        """Keep both texts; `field` names the file or key at fault."""
        super().__init__(en)
        self.en = en
        self.zh = zh
        self.field = field
