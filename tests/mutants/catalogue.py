"""The mutants: one wrong edit of one file each, and the tests that must fail under it.

It leaves making the edits and running the tests to `tests.mutants.running`.
"""

from dataclasses import dataclass

LEDGER = "tests/hub/ledger"
MONEY = "tests/hub/money"
ORDERS = "tests/hub/orders"
VOUCHERS = "tests/hub/vouchers"


@dataclass(frozen=True)
class Mutant:
    """Replace `old`, which stands once in `file`, by `new`; `test` must fail."""

    name: str
    file: str
    old: str
    new: str
    test: str


MUTANTS = (
    Mutant(
        "held_money_is_free",
        "hub/ledger/planning.py",
        "debit.credits_posted - debit.debits_posted - debit.debits_pending, growth",
        "debit.credits_posted - debit.debits_posted, growth",
        f"{LEDGER}/test_posting.py::test_held_money_counts_against_the_limit",
    ),
    Mutant(
        "a_post_releases_only_what_it_takes",
        "hub/ledger/rules.py",
        "return Delta(-held_fen, amount_fen)",
        "return Delta(-amount_fen, amount_fen)",
        f"{LEDGER}/test_posting.py::test_hold_post_releases_the_rest",
    ),
    Mutant(
        "a_void_takes_the_money",
        "hub/ledger/rules.py",
        "    return Delta(-held_fen, 0)",
        "    return Delta(-held_fen, held_fen)",
        f"{LEDGER}/test_posting.py::test_hold_void_releases_everything",
    ),
    Mutant(
        "a_hold_ends_twice",
        "hub/ledger/planning.py",
        "    if done is not None:",
        "    if done is not None and not done.amount_fen:",
        f"{LEDGER}/test_posting.py::test_hold_ends_once",
    ),
    Mutant(
        "a_post_may_exceed_its_hold",
        "hub/ledger/planning.py",
        "if movement.amount_fen > held.amount_fen or not whole:",
        "if not whole:",
        f"{LEDGER}/test_posting.py::test_post_above_the_hold_is_refused",
    ),
    Mutant(
        "an_end_may_change_the_accounts",
        "hub/ledger/planning.py",
        "if (held.debit_id, held.credit_id) != (movement.debit_id, movement.credit_id):",
        "if held.debit_id != movement.debit_id:",
        f"{LEDGER}/test_refusals.py::test_an_end_between_other_accounts_is_refused",
    ),
    Mutant(
        "an_expired_hold_is_posted",
        "hub/ledger/planning.py",
        "if over and movement.kind is TransferKind.POST:",
        "if over and movement.kind is TransferKind.SINGLE:",
        f"{LEDGER}/test_leases.py::test_an_expired_hold_cannot_be_posted_but_voided",
    ),
    Mutant(
        "a_lease_lasts_a_moment_too_long",
        "hub/ledger/planning.py",
        "held.expires_us <= moment",
        "held.expires_us < moment",
        f"{LEDGER}/test_leases.py::test_an_expired_hold_cannot_be_posted_but_voided",
    ),
    Mutant(
        "the_sweeper_takes_living_holds",
        "hub/ledger/planning.py",
        "if not over and movement.code == EXPIRED:",
        "if not over and movement.code == EXPIRED and held.expires_us is None:",
        f"{LEDGER}/test_leases.py::test_a_heartbeat_renews_even_a_lapsed_lease",
    ),
    Mutant(
        "an_ended_hold_keeps_its_lease",
        "hub/ledger/planning.py",
        "            plan.ended.append(movement.pending_id)",
        "            pass",
        f"{LEDGER}/test_leases.py::test_a_hold_is_posted_until_its_last_microsecond",
    ),
    Mutant(
        "other_content_is_taken_for_a_repeat",
        "hub/ledger/planning.py",
        "if found is None or found.fingerprint != fingerprint(movement, group.id, position):",
        "if found is None:",
        f"{LEDGER}/test_posting.py::test_same_id_with_other_content_is_a_conflict",
    ),
    Mutant(
        "the_fingerprint_leaves_out_the_amount",
        "hub/ledger/rules.py",
        'content = {**vars(movement), "kind"',
        'content = {**vars(movement), "amount_fen": 0, "kind"',
        f"{LEDGER}/test_posting.py::test_same_id_with_other_content_is_a_conflict",
    ),
    Mutant(
        "a_repeat_is_posted_again",
        "hub/ledger/service.py",
        "new.append(not is_stored(books, group))",
        "new.append(is_stored(books, group) is not None)",
        f"{LEDGER}/test_posting.py::test_same_group_again_changes_nothing",
    ),
    Mutant(
        "floats_are_money",
        "hub/ledger/rules.py",
        "if type(amount_fen) is not int:",
        "if not isinstance(amount_fen, int | float):",
        f"{LEDGER}/test_refusals.py::test_amounts_are_refused_by_name",
    ),
    Mutant(
        "nothing_is_an_amount",
        "hub/ledger/rules.py",
        "if amount_fen < 1:",
        "if amount_fen < 0:",
        f"{LEDGER}/test_refusals.py::test_amounts_are_refused_by_name",
    ),
    Mutant(
        "debtors_pay_more_than_they_owe",
        "hub/ledger/planning.py",
        "    if credit.credit_limited:",
        "    if credit.limited and credit.credit_limited:",
        f"{LEDGER}/test_refusals.py::test_nobody_pays_more_than_is_owed",
    ),
    Mutant(
        "a_transfer_is_reversed_twice",
        "hub/ledger/planning.py",
        "or key in books.reversed:",
        "or key in books.ended:",
        f"{LEDGER}/test_corrections.py::test_a_transfer_is_reversed_once",
    ),
    Mutant(
        "a_reversal_runs_the_same_way",
        "hub/ledger/movements.py",
        "        posted.credit_id,\n        posted.debit_id,\n        reverses_id",
        "        posted.debit_id,\n        posted.credit_id,\n        reverses_id",
        f"{LEDGER}/test_corrections.py::test_a_reversal_moves_all_back_and_is_linked",
    ),
    Mutant(
        "a_difference_forgets_what_was_posted",
        "hub/ledger/movements.py",
        "amount_fen=now_fen - was_fen, code=code",
        "amount_fen=now_fen, code=code",
        f"{LEDGER}/test_corrections.py::test_a_difference_makes_it_what_it_should_be",
    ),
    Mutant(
        "a_closed_month_takes_postings",
        "hub/ledger/service.py",
        "if month in closed and not is_stored(books, group):",
        "if month in closed and is_stored(books, group):",
        f"{LEDGER}/test_refusals.py::test_a_closed_month_takes_nothing_new",
    ),
    Mutant(
        "holds_do_not_lock_the_account",
        "hub/ledger/at_once.py",
        "ORDER BY id FOR NO KEY UPDATE)",
        "ORDER BY id)",
        f"{LEDGER}/test_concurrency.py::test_one_grant_is_never_overspent",
    ),
    Mutant(
        "ends_do_not_lock_the_account",
        "hub/ledger/statements.py",
        '_LOCK, wanted, end=" FOR NO KEY UPDATE")',
        "_LOCK, wanted)",
        f"{LEDGER}/test_concurrency.py::test_an_end_waits_for_the_one_under_way",
    ),
    Mutant(
        "one_statement_forgets_the_limit",
        "hub/ledger/at_once.py",
        "WHERE (limited = 1 AND debits_pending + debits_posted > credits_posted)",
        "WHERE (limited = 1 AND debits_posted > credits_posted)",
        f"{LEDGER}/test_posting.py::test_held_money_counts_against_the_limit",
    ),
    Mutant(
        "deleting_history_is_allowed",
        "hub/append_only.py",
        ', _sqlite_trigger(table.name, "delete", "DELETE")]',
        "]",
        f"{LEDGER}/test_posting.py::test_history_cannot_be_changed",
    ),
    Mutant(
        "the_cap_year_is_utc",
        "hub/ledger/periods.py",
        'return moment.astimezone(SHANGHAI).strftime("%Y")',
        'return moment.astimezone(UTC).strftime("%Y")',
        f"{LEDGER}/test_periods.py::test_the_year_turns_at_four_in_the_afternoon_utc",
    ),
    Mutant(
        "the_bill_month_is_utc",
        "hub/ledger/periods.py",
        'return moment.astimezone(SHANGHAI).strftime("%Y-%m")',
        'return moment.astimezone(UTC).strftime("%Y-%m")',
        f"{LEDGER}/test_periods.py::test_the_year_turns_at_four_in_the_afternoon_utc",
    ),
    Mutant(
        "the_share_is_rounded_half_up",
        "hub/orders/rules.py",
        "min(fee_fen * subsidy.num // subsidy.den, subsidy.held_fen)",
        "min((2 * fee_fen * subsidy.num + subsidy.den) // (2 * subsidy.den), subsidy.held_fen)",
        f"{MONEY}/test_arithmetic.py::test_half_is_rounded_down",
    ),
    Mutant(
        "a_voucher_pays_beyond_its_hold",
        "hub/orders/rules.py",
        "min(fee_fen * subsidy.num // subsidy.den, subsidy.held_fen)",
        "fee_fen * subsidy.num // subsidy.den",
        f"{MONEY}/test_arithmetic.py::test_settling_never_exceeds_the_holds",
    ),
    Mutant(
        "the_share_is_rounded_for_each_tranche",
        "hub/orders/rules.py",
        "(line.posted_fen + fee) * subsidy.num // subsidy.den - line.subsidised_fen",
        "(fee * subsidy.num + subsidy.den - 1) // subsidy.den",
        f"{MONEY}/test_arithmetic.py::test_tranches_bill_the_exact_sum_and_keep_the_share",
    ),
    Mutant(
        "tokens_are_billed_by_the_next_fen",
        "hub/orders/rules.py",
        "fee = min(line.exact_ufen // UFEN_PER_FEN - line.posted_fen, left_fen)",
        "fee = min(-(-line.exact_ufen // UFEN_PER_FEN) - line.posted_fen, left_fen)",
        f"{MONEY}/test_arithmetic.py::test_tranches_bill_the_exact_sum_and_keep_the_share",
    ),
    Mutant(
        "slices_use_up_the_whole_hold",
        "hub/orders/rules.py",
        "min(want_ufen, (held_fen - 1) * UFEN_PER_FEN - sliced_ufen)",
        "min(want_ufen, held_fen * UFEN_PER_FEN - sliced_ufen)",
        f"{MONEY}/test_arithmetic.py::test_slices_stay_one_fen_below_the_hold",
    ),
    Mutant(
        "fees_are_rounded_up",
        "hub/prices/rules.py",
        "return quantity * amount_fen // per_units",
        "return -(-quantity * amount_fen // per_units)",
        f"{MONEY}/test_arithmetic.py::test_fees_round_down_once",
    ),
    Mutant(
        "split_parts_forget_what_they_had",
        "hub/orders/rules.py",
        "due = (before_fen + fee_fen) * part.num // part.den - had",
        "due = (before_fen + fee_fen) * part.num // part.den",
        f"{MONEY}/test_arithmetic.py::test_parts_add_up_and_floor_cumulatively",
    ),
    Mutant(
        "more_than_quoted_is_charged",
        "hub/orders/settlement.py",
        "min(metered.get(line.meter, 0), line.quantity)",
        "metered.get(line.meter, 0)",
        f"{MONEY}/test_orders.py::test_more_than_quoted_is_never_charged",
    ),
    Mutant(
        "a_provider_s_fault_is_charged",
        "hub/orders/settlement.py",
        "if order.fault in (Fault.USER, Fault.CANCEL)",
        "if order.fault in (Fault.USER, Fault.CANCEL, Fault.PROVIDER)",
        f"{MONEY}/test_orders.py::test_platform_and_provider_fault_refund_in_full",
    ),
    Mutant(
        "usage_sent_again_with_other_counts_is_taken",
        "hub/metering/service.py",
        "if store_usage(session, rows) < len(rows):",
        "if store_usage(session, rows) < 0:",
        f"{MONEY}/test_allowances.py::test_usage_is_taken_once",
    ),
    Mutant(
        "a_corrected_line_keeps_its_voucher",
        "hub/orders/call_correction_money.py",
        "_unwind(session, line, max(0, line.subsidised_fen - most))",
        "_unwind(session, line, max(0, most - line.subsidised_fen))",
        f"{ORDERS}/test_call_corrections.py::test_wrong_tokens_give_back_to_cash_and_grant_in_the_open_month",
    ),
    Mutant(
        "the_first_to_pay_gets_its_money_back_first",
        "hub/orders/call_correction_money.py",
        "key=lambda key: (last[key], key), reverse=True)]",
        "key=lambda key: (last[key], key))]",
        f"{ORDERS}/test_call_corrections.py::test_of_two_grants_the_one_that_paid_last_gets_its_money_back_first",
    ),
    Mutant(
        "what_the_platform_bore_counts_as_given_out",
        "hub/orders/resolving.py",
        "        before_fen=sum(received.values()),",
        "        before_fen=line.posted_fen,",
        f"{ORDERS}/test_call_corrections.py::test_a_split_goes_on_from_what_receivers_kept",
    ),
    Mutant(
        "a_corrected_call_is_compared_with_its_first_bill",
        "hub/orders/call_figures.py",
        "newest.version_id, newest.cost_ufen, 0,",
        "newest.version_id, newest.was_ufen, 0,",
        f"{ORDERS}/test_call_corrections.py::test_a_late_record_is_billed_once_on_the_line_it_belongs_to",
    ),
    Mutant(
        "pay_taken_back_after_it_was_paid_out_is_the_platforms_loss",
        "hub/orders/differences.py",
        "            movements.append(move(again, debt, clearing,",
        "            movements.append(move(again, cost, clearing,",
        f"{ORDERS}/test_corrections.py::test_the_platform_advances_what_was_paid_out_already",
    ),
    Mutant(
        "a_payout_nets_nothing",
        "hub/payouts/service.py",
        "netted_fen=min(amount_fen, read_debt(session, actor.organisation_id)),",
        "netted_fen=min(0, read_debt(session, actor.organisation_id)),",
        "tests/hub/payouts/test_netting.py::test_the_bank_sends_what_is_left_after_the_debt",
    ),
    Mutant(
        "calls_of_unfiled_bases_are_redeemed",
        "hub/claims/redeemable.py",
        "if eligible == sum(costs.values()):",
        "if eligible <= sum(costs.values()):",
        f"{VOUCHERS}/test_redeemed_calls.py::test_only_calls_of_filed_derived_models_count",
    ),
    Mutant(
        "what_was_corrected_away_is_redeemed",
        "hub/claims/redeemable.py",
        "fee = min(_eligible_fee(session, rule, charge), left[base])",
        "fee = _eligible_fee(session, rule, charge)",
        f"{VOUCHERS}/test_redeemed_calls.py::test_orders_too_and_before_the_request_only_what_is_left_counts",
    ),
    Mutant(
        "a_correction_leaves_redeemed_money_with_the_firm",
        "hub/claims/redeemed_back.py",
        "for cut in _cut_redemptions(session, base, excess) if excess > 0 else ():",
        "for cut in _cut_redemptions(session, base, excess) if excess < 0 else ():",
        f"{VOUCHERS}/test_redeemed_calls.py::test_a_correction_after_the_payment_takes_its_share_back",
    ),
    Mutant(
        "the_share_of_the_lost_fee_is_rounded_by_itself",
        "hub/claims/redeemed_back.py",
        "return paid - min(paid, share_fen(remaining, *share) if share else 0)",
        "return share_fen(lost_fen, *share) if share else 0",
        f"{VOUCHERS}/test_redeemed_calls.py::test_an_odd_fee_is_floored_on_what_remains",
    ),
    Mutant(
        "a_silent_job_loses_its_money",
        "hub/orders/leases.py",
        "    if not have_expired(session, order.id, now=now):",
        "    if have_expired(session, order.id, now=now) and not expired:",
        f"{ORDERS}/test_order_leases.py::test_a_heartbeat_renews_once_half_the_lease_is_over",
    ),
    Mutant(
        "a_running_rental_counts_as_gone",
        "hub/tuning/keeping_holds.py",
        "rental.state is HoldState.ACTIVE",
        "rental.state is not HoldState.ACTIVE",
        f"{ORDERS}/test_order_leases.py::test_a_running_rental_is_never_swept_and_one_that_is_over_is",
    ),
)

SHORT = ("held_money_is_free", "a_post_releases_only_what_it_takes", "a_hold_ends_twice", "floats_are_money")
"""The ones that every test run proves killed; all of them are `make mutants`."""
