"""Pure rules of the catalogue: public names, texts of a model, states that may follow each other.

It leaves who may see what to `versions` and who may call what to `servability`.
"""

import re
import unicodedata
from dataclasses import dataclass

from hub.catalogue.tables import Engine, Locality, Model, Task, VersionState
from hub.errors import InvalidValueError
from hub.organisations.rules import SLUG

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_PUBLIC = re.compile(r"([a-z0-9-]{1,40})/([a-z0-9-]{1,64})(?:@([1-9][0-9]{0,8}))?")
RESERVED_NAMES = frozenset({"latest", "new", "none", "null", "versions"})


class BadModelNameError(InvalidValueError):
    """The name cannot be a public model name."""

    code = "bad_model_name"


@dataclass(frozen=True)
class PublicName:
    """`slug/name` or `slug/name@number` taken apart; `model` is `slug/name`."""

    slug: str
    name: str
    number: int | None

    @property
    def model(self) -> str:
        """The model's name without the version."""
        return f"{self.slug}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class ModelTexts:
    """What people read and filter by; None in a facet is not stated."""

    title_zh: str = ""
    title_en: str = ""
    summary_zh: str = ""
    summary_en: str = ""
    card_markdown: str = ""
    industry: str | None = None
    scenario: str | None = None
    stage: str | None = None
    licence: str | None = None
    locality: Locality = Locality.ANYWHERE
    engine: Engine = Engine.VLLM
    task: Task = Task.TEXT_GENERATION


def check_model_name(name: str, slug: str) -> str:
    """Return `slug/name` from `name` or `slug/name` as its owner typed it.

    Raises:
        BadModelNameError: other characters, more than 64, reserved, or another organisation's slug.
    """
    typed = name[:120]
    name = unicodedata.normalize("NFKC", name).strip()
    leading, slash, rest = name.rpartition("/")
    if slash and leading != slug:
        raise BadModelNameError(
            f"'{typed}' leads with '{leading[:60]}', but your organisation's short name is '{slug}'. Use '{slug}/…'.",
            f"“{typed}”的前缀应为本机构短名“{slug}”。",
            field="name",
        )
    if not _NAME.fullmatch(rest):
        raise BadModelNameError(
            f"'{typed}' cannot be a model name: 1 to 64 of a-z, 0-9 and '-', no '-' at the ends.",
            f"“{typed}”不能作为模型名：1 至 64 个小写字母、数字或“-”，首尾不能是“-”。",
            field="name",
        )
    if rest in RESERVED_NAMES:
        raise BadModelNameError(f"'{rest}' is reserved. Choose another name.", f"“{rest}”为保留名。", field="name")
    return f"{slug}/{rest}"


def parse_public_name(text: str) -> PublicName | None:
    """Return the parts of `slug/name` or `slug/name@N`, None for any other text."""
    match = _PUBLIC.fullmatch(text)
    if match is None or not SLUG.fullmatch(match[1]) or not _NAME.fullmatch(match[2]):
        return None
    return PublicName(slug=match[1], name=match[2], number=int(match[3]) if match[3] else None)


def public_name(model: Model, number: int | None = None) -> str:
    """Return `slug/name`, or `slug/name@N` with a number."""
    return model.name if number is None else f"{model.name}@{number}"


def write_search_text(name: str, texts: ModelTexts) -> str:
    """Return what the text search looks in: name, titles and summaries, folded."""
    parts = (name, texts.title_zh, texts.title_en, texts.summary_zh, texts.summary_en)
    return fold_text("\n".join(parts))


def fold_text(text: str) -> str:
    """Return text as it is compared in search: NFKC, case-folded."""
    return unicodedata.normalize("NFKC", text).casefold()


OWN_STATES = (VersionState.PRIVATE, VersionState.IN_REVIEW, VersionState.LISTED)
"""States in which the owner may call a version."""
