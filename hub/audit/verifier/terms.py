"""What bills are computed with: pinned prices, splits, rules, filings. It leaves the bills to `orders` and `calls`."""

from collections import Counter, defaultdict
from fractions import Fraction
from math import ceil

from .reading import Export, Row


class Bills:
    """What bills are computed with: prices, rules, versions and filings of the export."""

    def __init__(self, export: Export) -> None:
        self.export = export
        self.prices, self.rules = export.annexes("prices"), export.annexes("rules")
        self.versions, self.quotes = export.annexes("versions"), export.annexes("quotes")
        self.withdrawn = {event["subject"]: event["occurred_at"] for event in export.events("filing.withdrawn")}
        self.groups: dict[str, list[Row]] = defaultdict(list)
        self.businesses: dict[str, list[Row]] = defaultdict(list)
        self.accounts = {row["id"]: row for row in export.rows("accounts")}
        for item in export.rows("transfers"):
            self.groups[item["row"]["group_id"]].append(item["row"])
            self.businesses[item["row"]["business_id"]].append(item["row"])

    def of_business(self, business_id: str) -> list[Row]:
        """Return the transfers that were made for one order, tranche or bill line."""
        return self.businesses[business_id]

    def is_filed(self, version_id: str, moment: int) -> bool:
        """Say whether the root base of a version had a valid filing at an instant."""
        digest = self.versions[version_id]["weights_digest"]
        for filing in self.export.annexes("filings").values():
            ends = [end for end in (filing["valid_until"], self.withdrawn.get(filing["id"])) if end is not None]
            counted = filing["weights_digest"] == digest and filing["track"] == "备案" and filing["filed_at"] <= moment
            if counted and all(moment < end for end in ends):
                return True
        return False

    def price(self, price_id: str, meter: str) -> tuple[int, int]:
        """Return (amount_fen, per_units) of a meter."""
        line = next(line for line in self.prices[price_id]["lines"] if line["meter"] == meter)
        return line["amount_fen"], line["per_units"]

    def cost_ufen(self, usage: Row) -> int:
        """Return the cost of one call, rounded up once to a µfen; cached tokens are part of the prompt's."""
        meters = {line["meter"] for line in self.prices[usage["price_version_id"]]["lines"]}
        counts = (
            ("prompt", usage["prompt_tokens"] - usage["cached_tokens"]),
            ("cached" if "cached" in meters else "prompt", usage["cached_tokens"]),
            ("completion", usage["completion_tokens"]),
        )
        exact = Fraction(0)
        for meter, tokens in counts:
            if tokens:
                amount, units = self.price(usage["price_version_id"], meter)
                exact += Fraction(amount * 1_000_000 * tokens, units)
        return ceil(exact)

    def give_out(
        self, fee: int, price_id: str, *, payer: str | None = None, before: int = 0, had: Counter[tuple[str, str]]
    ) -> Counter[tuple[str, str]]:
        """Return who receives how much of a fee: parts floor cumulatively, the platform takes the rest."""
        price = self.prices[price_id]
        terms = price["parts"]
        if terms is None:
            own = price["organisation_id"] == payer
            return Counter({("platform", "") if own else ("seller", price["organisation_id"]): fee})
        given: Counter[tuple[str, str]] = Counter()
        left = fee
        for part in terms:
            key = (part["party"], part["organisation_id"] or "")
            if part["party"] == "platform" or (payer is not None and part["organisation_id"] == payer):
                continue
            given[key] = max(0, min((before + fee) * part["num"] // part["den"] - had[key], left))
            left -= given[key]
        given["platform", ""] += left
        return given
