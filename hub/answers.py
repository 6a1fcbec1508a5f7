"""What the answers of many rooms have in common; the API's description is made from these shapes.

It leaves each room's own shapes to the room.
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema
from typing_extensions import TypedDict

Row = TypeVar("Row")


class Texts(TypedDict):
    """A text in both languages."""

    zh: str
    en: str


class NamedTexts(Texts):
    """A name in both languages with its id."""

    id: str


class Items(TypedDict, Generic[Row]):
    """Rows, in the order that the operation's summary says."""

    items: list[Row]


@dataclass(frozen=True)
class ShapeOf:
    """Says of a dictionary or a response whose JSON it has: `Annotated[dict[str, Any], ShapeOf(Wallet)]`.

    So a dataclass that is answered as it is needs no second list of its fields.
    """

    shape: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(self.shape)
