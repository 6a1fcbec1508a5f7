"""The room's face: claims, their packs, redemptions and authority reports under one name.

It leaves the doing to the files beside it.
"""

from hub.claims.candidates import Candidate, Obstacle, judge_candidates, list_candidates
from hub.claims.drafting import (
    draft_claim,
    find_claim,
    list_claims,
    list_lines,
    list_own_lines,
    place_claim,
    plan_claim,
    reconcile_claim,
    record_payment,
    refuse_claim,
    submit_claim,
    withdraw_claim,
)
from hub.claims.pack import write_pack
from hub.claims.redeemable import list_redeemable
from hub.claims.redeemed_back import collect_debts, sum_taken_back, take_back_redeemed
from hub.claims.redemptions import (
    list_redeemed,
    list_redemptions,
    request_redemption,
    review_redemption,
    withdraw_redemption,
)
from hub.claims.reporting import (
    Change,
    build_report,
    check_report,
    compare_reports,
    diff_against_last,
    find_report,
    issue_report,
    list_reports,
)

__all__ = [
    "Candidate",
    "Change",
    "Obstacle",
    "build_report",
    "check_report",
    "collect_debts",
    "compare_reports",
    "diff_against_last",
    "draft_claim",
    "find_claim",
    "find_report",
    "issue_report",
    "judge_candidates",
    "list_candidates",
    "list_claims",
    "list_lines",
    "list_own_lines",
    "list_redeemable",
    "list_redeemed",
    "list_redemptions",
    "list_reports",
    "place_claim",
    "plan_claim",
    "reconcile_claim",
    "record_payment",
    "refuse_claim",
    "request_redemption",
    "review_redemption",
    "submit_claim",
    "sum_taken_back",
    "take_back_redeemed",
    "withdraw_claim",
    "withdraw_redemption",
    "write_pack",
]
