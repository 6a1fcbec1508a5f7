"""Who and what a demonstration installation begins with: organisations, people, providers, offers, prices.

Every name is marked as a demonstration. It leaves writing them to `hub.cli.market`.
"""

from dataclasses import dataclass

from hub.actor import Role
from hub.catalogue.rules import ModelTexts
from hub.organisations.rules import OrganisationKind


@dataclass(frozen=True)
class DemoOrganisation:
    """An organisation with its people: (key in the credentials file, name, role)."""

    slug: str
    name: str
    kind: OrganisationKind
    people: tuple[tuple[str, str, Role], ...]


@dataclass(frozen=True)
class DemoOffer:
    """One offer; `hour_fen` is the price of an hour of the device in fen."""

    provider: str
    title_zh: str
    title_en: str
    region_zh: str
    region_en: str
    via_city_platform: bool
    hour_fen: int
    cpu_threads: int


ORGANISATIONS = (
    DemoOrganisation(
        "guanmo",
        "莞模演示运营中心",
        OrganisationKind.OPERATOR,
        (("operator", "运营员", Role.OPERATOR), ("reviewer", "复核员", Role.OPERATOR)),
    ),
    DemoOrganisation(
        "demo-authority", "演示主管部门", OrganisationKind.AUTHORITY, (("auditor", "审计员", Role.AUDITOR),)
    ),
    DemoOrganisation(
        "demo-city-compute", "演示市算力服务平台", OrganisationKind.PROVIDER, (("provider", "供应商", Role.PROVIDER),)
    ),
    DemoOrganisation(
        "demo-bay-cloud", "演示湾区云", OrganisationKind.PROVIDER, (("provider2", "供应商二", Role.PROVIDER),)
    ),
    DemoOrganisation(
        "demo-precision", "演示东方精密制造厂", OrganisationKind.FACTORY, (("factory", "设备工程师", Role.FACTORY),)
    ),
    DemoOrganisation(
        "demo-integrator", "演示智工集成商", OrganisationKind.INTEGRATOR, (("integrator", "集成商", Role.INTEGRATOR),)
    ),
    DemoOrganisation(
        "demo-lab", "演示开发者工作室", OrganisationKind.DEVELOPER, (("developer", "开发者", Role.DEVELOPER),)
    ),
)

OFFERS = (
    DemoOffer("demo-city-compute", "松山湖 2 线程", "Songshan Lake, 2 threads", "松山湖", "Songshanhu", True, 3600, 2),
    DemoOffer("demo-city-compute", "滨海湾 1 线程", "Binhai Bay, 1 thread", "滨海湾", "Binhai Bay", True, 2400, 1),
    DemoOffer("demo-bay-cloud", "湾区云 2 线程", "Bay cloud, 2 threads", "韶关", "Shaoguan", False, 2880, 2),
)

PRICES: dict[str, dict[str, tuple[int, int]]] = {
    "tuning": {"trained_tokens": (6000, 1_000_000)},
    "base": {"prompt": (400, 1_000_000), "cached": (100, 1_000_000), "completion": (800, 1_000_000)},
    "adapter": {"prompt": (600, 1_000_000), "cached": (150, 1_000_000), "completion": (1200, 1_000_000)},
}
"""The platform's own prices: meter -> (fen, units)."""

_CARD = """**用途** 演示微调、部署和计费的完整流程；回答只作示例。

**数据** 本项目生成的制造业文本：工单、故障描述、点检记录和交接班日志，不含任何企业数据。

**局限** 只有几百万参数，只认识上述文体，不是通用对话模型。
"""
"""What the model page says about every demonstration base; the page shows an owner's words as they are."""

BASE_TEXTS = {
    "demo-zh-3m": ModelTexts(
        title_zh="演示制造基座（中文）",
        title_en="Demo manufacturing base (Chinese)",
        summary_zh="读中文工单、故障描述和点检记录，适合微调成分类、编码和改写的小模型。",
        summary_en="Reads Chinese work orders, fault reports and inspection notes; tune it to sort, code or reword.",
        card_markdown=_CARD,
    ),
    "demo-bilingual-4m": ModelTexts(
        title_zh="演示制造基座（中英）",
        title_en="Demo manufacturing base (bilingual)",
        summary_zh="同时读中文和英文的工单、故障描述和点检记录，适合双语车间微调使用。",
        summary_en="Reads work orders, fault reports and inspection notes in Chinese and English.",
        card_markdown=_CARD,
    ),
    "demo-letters-3m": ModelTexts(
        title_zh="演示逐字母基座（短文本更正）",
        title_en="Demo letter-by-letter base (short text)",
        summary_zh="逐字母读写英文短文本，会补全缩写、改正错字；适合微调成企业自己的工单规范化模型。",
        summary_en="Reads and writes letter by letter, spells out short forms and mends slips; tune it to your rules.",
        card_markdown=_CARD,
    ),
    "demo-trial-1m": ModelTexts(
        title_zh="演示试验基座（未备案）",
        title_en="Demo trial base (not filed)",
        summary_zh="没有备案的试验基座：可以用现金试调，不能用模型券，结果不能公开上架。",
        summary_en="A trial base without a filing: tune it for cash; no model voucher pays and results stay private.",
        card_markdown=_CARD,
    ),
}
