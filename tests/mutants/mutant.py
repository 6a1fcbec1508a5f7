"""What a mutant is: one wrong edit of one file, and the test that must fail under it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """Replace `old`, which stands once in `file`, by `new`; `test` must fail.

    Where SQLite shows it, the test runs on SQLite alone.
    """

    name: str
    file: str
    old: str
    new: str
    test: str
    postgresql: bool = False
