"""Request bodies, forms and queries of the catalogue's API. It leaves answers to `views` and rules to the services."""

from typing import Annotated

from pydantic import AwareDatetime, Field

from hub.catalogue.rules import ModelTexts
from hub.catalogue.search import SearchFilters
from hub.catalogue.tables import Engine, Locality, ModelKind, Task, VersionDecision, VersionState
from hub.filings.service import StandingState
from hub.filings.tables import Ruling
from hub.organisations.texts import Digest, Line, Note, Page, Reason, Word
from hub.web import Body, Query
from serving.contract import Visibility

PublicName = Annotated[str, Field(min_length=1, max_length=120)]


class SearchQuery(Query):
    """Search text, facets and the page."""

    q: Annotated[str, Field(max_length=200)] = ""
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: Annotated[str, Field(max_length=300)] | None = None
    industry: Word | None = None
    scenario: Word | None = None
    stage: Word | None = None
    kind: ModelKind | None = None
    task: Task | None = None
    base: PublicName | None = None
    filing: StandingState | None = None
    priced: bool | None = None
    can_fine_tune: bool | None = None
    has_endpoint: bool | None = None
    two_high: bool | None = None
    mine: bool | None = None

    def filters(self) -> SearchFilters:
        """Return the facets as the service takes them."""
        return SearchFilters(**self.model_dump(exclude={"q", "limit", "cursor"}))


class ModelPath(Query):
    """One model by its public name; `name` may carry `@N`."""

    organisation: Word
    name: PublicName


class VersionPath(Query):
    """One version by id."""

    version_id: Word


class UploadPath(Query):
    """One upload."""

    upload_id: Word


class TitlePath(Query):
    """One entry of the taxonomy."""

    axis: Word
    code: Word


class StateQuery(Query):
    """Which versions are listed."""

    state: VersionState


class TextFields(Query):
    """Texts and facets of a model."""

    title_zh: Line | None = None
    title_en: Line | None = None
    summary_zh: Note = ""
    summary_en: Note = ""
    card_markdown: Page = ""
    industry: Word | None = None
    scenario: Word | None = None
    stage: Word | None = None
    licence: Word | None = None
    locality: Locality = Field(default=Locality.ANYWHERE, strict=False)
    engine: Engine = Field(default=Engine.VLLM, strict=False)
    task: Task = Field(default=Task.TEXT_GENERATION, strict=False)

    def texts(self) -> ModelTexts:
        """Return the texts as the service takes them."""
        fields = self.model_dump(include=set(TextFields.model_fields))
        return ModelTexts(**{name: value for name, value in fields.items() if value is not None})


class NewBase(TextFields):
    """Import of a folder that lies on the hub's machine."""

    model_config = Body.model_config

    path: Annotated[str, Field(min_length=1, max_length=4_000)]
    name: PublicName
    kind: ModelKind = Field(default=ModelKind.BASE, strict=False)


class NewAdapter(TextFields):
    """Form fields of an adapter's upload; the files come under `files`."""

    name: PublicName
    base: PublicName | None = None
    base_weights_digest: Digest | None = None


class PriceOfMeter(Body):
    """`amount_fen` for each `per_units`."""

    amount_fen: int
    per_units: int


class SplitPartBody(Body):
    """One party's share; the platform takes what is left."""

    party: Annotated[str, Field(pattern="^(integrator|base_owner|pool|platform)$")]
    organisation_id: Word | None = None
    num: int
    den: int


class Listing(Body):
    """What calls cost and how the revenue splits."""

    prices: dict[Annotated[str, Field(pattern="^(prompt|cached|completion)$")], PriceOfMeter]
    split: list[SplitPartBody] = Field(default_factory=list, max_length=10)


class ReviewBody(Body):
    """A decision with its reason; approval of a derivative needs a ruling on its own filing."""

    decision: VersionDecision = Field(strict=False)
    reason: Reason
    ruling: Ruling | None = Field(default=None, strict=False)
    ruling_number: Line | None = None


class DerivativeBody(Body):
    """A ruling on a derivative's own filing."""

    ruling: Ruling = Field(strict=False)
    reason: Reason
    number: Line | None = None


class Stop(Body):
    """Why a version is stopped, in both languages."""

    reason_zh: Reason
    reason_en: Reason


class Because(Body):
    """Why a step is taken."""

    reason: Reason


class Retirement(Body):
    """When a version ends, left out: now; and the public name that its callers should use then."""

    retires_at: AwareDatetime | None = Field(default=None, strict=False)
    successor: Word | None = None


class Access(Body):
    """Who may see and call the listed versions."""

    visibility: Visibility = Field(strict=False)
    acl: list[Word] = Field(default_factory=list, max_length=500)


class Flags(Body):
    """Evidence of the flags that the authority counts; null clears a flag."""

    two_high_evidence: Reason | None
    manufacturing_base_evidence: Reason | None


class Title(Body):
    """The official title of an entry."""

    title_zh: Line
    title_en: Line
