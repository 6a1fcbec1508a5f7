"""What the API of money answers has exactly the fields that its description names, for every role that reads it.

Writes are compared wherever tests make them, by `tests.described.watch_answers`.
"""

import re
from typing import Any

import pytest

from hub.audit.service import keep_audit
from tests.described import check_shape
from tests.hub.test_description import list_money
from tests.ui_vouchers.scene import Scene

READS = (
    ("/allowances", "operator"),
    ("/audit/checkpoints", "auditor"),
    ("/audit/transfers/{transfer_id}/proof", "auditor"),
    ("/authority-reports", "auditor"),
    ("/authority-reports/{period}/changes", "auditor"),
    ("/authority-reports/{period}/preview.json", "auditor"),
    ("/authority-reports/{period}/report.json", "operator"),
    ("/bill-lines/{bill_line_id}/corrections", "factory"),
    ("/claim-lines", "factory"),
    ("/claims", "auditor"),
    ("/claims/{claim_id}", "operator"),
    ("/corrections", "operator"),
    ("/corrections", "auditor"),
    ("/corrections/{correction_id}", "factory"),
    ("/earnings", "integrator"),
    ("/grants", "factory"),
    ("/grants/{grant_id}/papers", "factory"),
    ("/grants/{grant_id}/redeemable", "factory"),
    ("/late-calls", "auditor"),
    ("/ledger/accounts", "factory"),
    ("/ledger/accounts/{account_id}/entries", "factory"),
    ("/ledger/check", "auditor"),
    ("/ledger/trial-balance", "auditor"),
    ("/meters", "provider"),
    ("/offers", "factory"),
    ("/offers/{offer_id}", "factory"),
    ("/offers/{offer_id}/estimate", "factory"),
    ("/orders", "factory"),
    ("/owners", "operator"),
    ("/orders/{order_id}", "factory"),
    ("/orders/{order_id}/corrections", "factory"),
    ("/organisations/{organisation_id}/owners", "factory"),
    ("/payouts", "provider"),
    ("/payouts", "operator"),
    ("/payouts/{payout_id}", "provider"),
    ("/prices", "factory"),
    ("/prices/{price_version_id}", "factory"),
    ("/programmes", "factory"),
    ("/programmes/{code}/rules", "factory"),
    ("/providers", "factory"),
    ("/providers/{provider_id}/offers", "provider"),
    ("/quotes", "factory"),
    ("/quotes/{quote_id}", "factory"),
    ("/redemptions", "factory"),
    ("/redemptions", "auditor"),
    ("/redemptions/{redemption_id}", "factory"),
    ("/related-parties?buyer_id={organisation_id}&seller_id={seller_id}", "operator"),
    ("/related-parties/decisions", "auditor"),
    ("/rentals", "factory"),
    ("/rentals", "provider"),
    ("/rentals/{rental_id}", "factory"),
    ("/rentals/{rental_id}/meters", "factory"),
    ("/splits/{split_terms_id}", "factory"),
    ("/statement?month={period}", "factory"),
    ("/statements", "factory"),
    ("/statement/lines/{line_id}/records", "factory"),
    ("/usage?month={period}", "factory"),
    ("/usage/engines", "auditor"),
    ("/voucher-applications", "factory"),
    ("/voucher-applications/{application_id}", "operator"),
    ("/wallet", "factory"),
)
EMPTY = {
    "/claims/{claim_id}",
    "/grants/{grant_id}/redeemable",
    "/ledger/check",
    "/owners",
    "/redemptions/{redemption_id}",
    "/related-parties",
    "/related-parties/decisions",
    "/statements",
    "/usage/engines",
}
"""Where an empty list is what should be answered here."""


@pytest.fixture(scope="module")
def ids(scene: Scene) -> dict[str, str]:
    """One of everything that a path names, as the lists of the API tell it."""
    keep_audit(scene.world.sessions, scene.world.home, scene.world.now)

    def first(path: str, who: str = "factory", rows: str = "items") -> Any:
        return scene.world.visit(who).get(f"/api/v1{path}").json[rows][0]

    account = first("/ledger/accounts")
    entry = first(f"/ledger/accounts/{account['id']}/entries")
    split = next(
        row["split_terms_id"]
        for row in scene.world.visit("factory").get("/api/v1/prices").json["items"]
        if row["split_terms_id"]
    )
    return {
        "account_id": account["id"],
        "application_id": first("/voucher-applications")["id"],
        "bill_line_id": scene.ids["line"],
        "claim_id": scene.ids["claim"],
        "code": "model",
        "correction_id": first(f"/orders/{scene.ids['order']}/corrections")["id"],
        "grant_id": scene.ids["grant_data_asset"],
        "line_id": scene.ids["line"],
        "offer_id": scene.ids["offer"],
        "order_id": scene.ids["order"],
        "organisation_id": scene.world.actors["factory"].organisation_id,
        "payout_id": first("/payouts", "provider")["id"],
        "period": scene.ids["month"],
        "price_version_id": first("/prices")["id"],
        "provider_id": first("/providers", rows="providers")["id"],
        "quote_id": first("/quotes")["id"],
        "redemption_id": first("/redemptions")["id"],
        "rental_id": scene.ids["rental"],
        "seller_id": scene.world.actors["provider"].organisation_id,
        "split_terms_id": split,
        "transfer_id": entry["transfer_id"],
    }


@pytest.mark.parametrize(("path", "who"), READS)
def test_an_answer_has_the_described_fields(scene: Scene, ids: dict[str, str], path: str, who: str) -> None:
    client = scene.world.visit(who)
    described = client.get("/api/openapi.json").json
    answers = described["paths"][f"/api/v1{path.partition('?')[0]}"]["get"]["responses"]
    schema = answers["200"]["content"]["application/json"]["schema"]
    found = client.get(f"/api/v1{re.sub(r'{(.+?)}', lambda name: ids[name[1]], path)}")
    assert found.status_code == 200, found.text
    told = check_shape(found.json, schema, described["components"]["schemas"], path)
    lists = [value for value in found.json.values() if isinstance(value, list)]
    assert (told > 2 and all(lists)) or path.partition("?")[0] in EMPTY


def test_every_read_of_money_is_compared(scene: Scene) -> None:
    described = scene.world.visit("factory").get("/api/openapi.json").json
    reads = {
        path.removeprefix("/api/v1")
        for method, path, operation in list_money(described)
        if method == "get" and "application/json" in operation["responses"]["200"]["content"]
    }
    assert len(reads) > 45
    assert reads - {path.partition("?")[0] for path, _ in READS} == set()


def test_a_missing_and_an_unknown_key_are_noticed(scene: Scene) -> None:
    described = scene.world.visit("factory").get("/api/openapi.json").json
    wallet, schemas = scene.world.visit("factory").get("/api/v1/wallet").json, described["components"]["schemas"]
    schema = {"$ref": "#/components/schemas/Wallet"}
    for broken in (wallet | {"more": 1}, {"held_fen": 0}, wallet | {"held_fen": "0"}, wallet | {"held_fen": None}):
        with pytest.raises(AssertionError, match="wallet"):
            check_shape(broken, schema, schemas, "wallet")
