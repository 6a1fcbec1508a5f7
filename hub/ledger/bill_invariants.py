"""Invariants of bills, vouchers, meters, claims and the audit chain, over the tables of the rooms that own them.

It reads those tables as SQL text, because rooms further down may not be imported here; the ledger by itself stands in
`book_invariants`.
"""

from hub.ledger.law import Invariant

INVARIANTS = (
    Invariant(
        "I9",
        "What vouchers pay of a line, and of all lines of a contract, is at most the share of the actual fee.",
        "券抵扣不超过实际费用的比例，逐行与逐合同均成立。",
        "SELECT 'order ' || order_id FROM charges WHERE order_id IS NOT NULL AND grant_id IS NOT NULL "
        "GROUP BY order_id, meter, share_num, share_den HAVING sum(voucher_fen) * share_den > sum(fee_fen) * share_num "
        "UNION ALL SELECT 'line ' || id FROM bill_lines WHERE subsidised_fen * share_den > posted_fen * share_num "
        "UNION ALL SELECT 'contract ' || a.contract_no FROM charges c JOIN voucher_grants g ON g.id = c.grant_id "
        "JOIN voucher_applications a ON a.id = g.application_id WHERE c.order_id IS NOT NULL "
        "GROUP BY a.programme_id, a.contract_no, c.share_num, c.share_den "
        "HAVING sum(c.voucher_fen) * c.share_den > sum(c.fee_fen) * c.share_num",
    ),
    Invariant(
        "I10",
        "Awards, and what is held and used of them, stay within the firm's cap in its period.",
        "企业每期获批、冻结与使用金额不超过上限。",
        "SELECT g.organisation_id, g.programme_id, g.period_key FROM voucher_grants g "
        "JOIN ledger_accounts a ON a.id = g.account_id JOIN rule_versions r ON r.id = g.rule_version_id "
        "GROUP BY g.organisation_id, g.programme_id, g.period_key "
        "HAVING sum(a.debits_pending + a.debits_posted - g.returned_fen) > max({cap_fen}) "
        "OR sum(g.amount_fen - g.returned_fen) > max({cap_fen})",
    ),
    Invariant(
        "I11",
        "Awards are at most what was released, and releases at most the programme's fund.",
        "发放总额不超过已释放资金，释放不超过项目总额。",
        "SELECT p.code FROM programmes p WHERE p.fund_fen IS NOT NULL AND ("
        "(SELECT coalesce(sum(g.amount_fen - g.returned_fen), 0) FROM voucher_grants g WHERE g.programme_id = p.id) > "
        "(SELECT coalesce(sum(f.amount_fen), 0) FROM fund_tranches f "
        "WHERE f.programme_id = p.id AND f.released_at IS NOT NULL) "
        "OR (SELECT coalesce(sum(f.amount_fen), 0) FROM fund_tranches f WHERE f.programme_id = p.id) > p.fund_fen)",
    ),
    Invariant(
        "I12",
        "A fee is voucher plus cash, and is given out to the last fen; an order's sums are those of its charges.",
        "费用等于券加现金且全部分配；订单合计等于其各项费用。",
        "SELECT 'charge ' || c.id FROM charges c WHERE c.fee_fen <> c.voucher_fen + c.cash_fen OR c.fee_fen <> "
        "(SELECT coalesce(sum(p.amount_fen), 0) FROM charge_parts p WHERE p.charge_id = c.id) "
        "UNION ALL SELECT 'order ' || o.id FROM orders o WHERE o.state <> 'held' AND (o.charged_fen <> "
        "(SELECT coalesce(sum(c.fee_fen), 0) FROM charges c WHERE c.order_id = o.id) "
        "OR o.voucher_fen <> "
        "(SELECT coalesce(sum(c.voucher_fen), 0) FROM charges c WHERE c.order_id = o.id)) "
        "UNION ALL SELECT 'bill ' || l.id FROM bill_lines l WHERE l.posted_fen <> "
        "(SELECT coalesce(sum(c.fee_fen), 0) FROM charges c WHERE c.bill_line_id = l.id)",
    ),
    Invariant(
        "I13",
        "Money is held exactly while its order, tranche or payout lives, and no run ends with its order open.",
        "冻结仅在订单、批次或付款存续期间存在；任务结束时订单已了结。",
        "SELECT 'hold ' || h.id FROM ledger_transfers h LEFT JOIN ledger_transfers t ON t.pending_id = h.id "
        "LEFT JOIN orders o ON o.id = h.business_id AND o.state = 'held' "
        "LEFT JOIN usage_tranches u ON u.id = h.business_id AND u.state = 'open' "
        "LEFT JOIN payouts p ON p.id = h.business_id AND p.state IN ('requested', 'in_payout', 'unknown') "
        "WHERE h.kind = 'pending' AND t.id IS NULL AND o.id IS NULL AND u.id IS NULL AND p.id IS NULL "
        "UNION ALL SELECT 'tranche ' || u.id FROM usage_tranches u WHERE u.state = 'open' AND NOT EXISTS "
        "(SELECT 1 FROM ledger_transfers h LEFT JOIN ledger_transfers t ON t.pending_id = h.id "
        "WHERE h.business_id = u.id AND h.kind = 'pending' AND t.id IS NULL) "
        "UNION ALL SELECT 'run ' || r.id FROM runs r JOIN orders o ON o.id = r.order_id "
        "WHERE o.state = 'held' AND r.state IN "
        "('succeeded', 'early_stopped', 'invalid', 'expired', 'cancelled', 'failed')",
    ),
    Invariant(
        "I14",
        "Device time billed is at most the time elapsed, and one device is busy for one rental at a time.",
        "计费机时不超过经过时间，同一设备同一时刻只计一次租用。",
        "SELECT 'rental ' || r.id FROM rentals r JOIN offers f ON f.id = r.offer_id WHERE r.released_at IS NOT NULL "
        "AND r.device_ms > f.count * ((r.released_at - r.allocated_at) / 1000 + 1) "
        "UNION ALL SELECT 'meter ' || m.id FROM rental_meters m JOIN rental_meters n "
        "ON n.provider_organisation_id = m.provider_organisation_id AND n.device_id = m.device_id AND n.id > m.id "
        "AND n.rental_id <> m.rental_id AND n.busy_from_at < m.observed_at AND m.busy_from_at < n.observed_at "
        "WHERE m.state = 'accepted' AND n.state = 'accepted' "
        "AND m.busy_from_at < m.observed_at AND n.busy_from_at < n.observed_at "
        "UNION ALL SELECT 'backwards ' || n.id FROM rental_meters m JOIN rental_meters n "
        "ON n.rental_id = m.rental_id AND n.seq > m.seq AND n.counted_ms < m.counted_ms "
        "WHERE m.state = 'accepted' AND n.state = 'accepted'",
    ),
    Invariant(
        "I15",
        "Every accepted usage record is rated once, and a line carries exactly its records' cost as corrected.",
        "每条已接收用量只计价一次，账单行等于其用量（含更正）之和。",
        "SELECT 'unrated ' || u.request_id FROM usage_records u JOIN allowances a ON a.id = u.allowance_id "
        "JOIN usage_tranches q ON q.id = a.tranche_id AND q.state = 'resolved' "
        "LEFT JOIN rated_usage r ON r.request_id = u.request_id AND r.attempt = u.attempt WHERE r.request_id IS NULL "
        "UNION ALL SELECT 'unmetered ' || r.request_id FROM rated_usage r LEFT JOIN usage_records u "
        "ON u.request_id = r.request_id AND u.attempt = r.attempt WHERE u.request_id IS NULL "
        "UNION ALL SELECT 'line ' || l.id FROM bill_lines l WHERE l.exact_ufen <> "
        "(SELECT coalesce(sum(r.cost_ufen), 0) FROM rated_usage r JOIN usage_tranches q ON q.id = r.tranche_id "
        "WHERE r.bill_line_id = l.id AND q.state = 'resolved') + "
        "(SELECT coalesce(sum(x.cost_ufen - x.was_ufen), 0) FROM call_corrections x WHERE x.bill_line_id = l.id)",
    ),
    Invariant(
        "I16",
        "A charge uses the price and rule versions that its quote or bill line pinned.",
        "费用采用报价单或账单行锁定的价格与规则版本。",
        "SELECT 'order ' || c.id FROM charges c JOIN orders o ON o.id = c.order_id WHERE NOT EXISTS "
        "(SELECT 1 FROM quote_lines l LEFT JOIN quote_covers v ON v.quote_line_id = l.id "
        "WHERE l.quote_id = o.quote_id AND l.meter = c.meter AND l.price_version_id = c.price_version_id "
        "AND (c.rule_version_id IS NULL OR (v.rule_version_id = c.rule_version_id AND v.grant_id = c.grant_id "
        "AND v.share_num = c.share_num AND v.share_den = c.share_den))) "
        "UNION ALL SELECT 'line ' || c.id FROM charges c JOIN bill_lines l ON l.id = c.bill_line_id "
        "WHERE c.price_version_id <> l.price_version_id "
        "OR (c.rule_version_id IS NOT NULL AND c.rule_version_id <> coalesce(l.rule_version_id, ''))",
    ),
    Invariant(
        "I17",
        "Nothing is given back beyond what was paid, and a full refund that was not corrected leaves nothing charged.",
        "退回不超过已付，全额退款未经更正的费用为零。",
        "SELECT 'order ' || o.id FROM orders o WHERE o.state = 'refunded' AND o.fault IN ('platform', 'provider') "
        "AND o.charged_fen <> 0 AND NOT EXISTS "
        "(SELECT 1 FROM bill_versions v WHERE v.order_id = o.id AND v.state = 'posted' AND v.fault IS NULL) "
        "UNION ALL SELECT 'bill ' || order_id FROM charges WHERE order_id IS NOT NULL GROUP BY order_id, meter "
        "HAVING sum(fee_fen) < 0 OR sum(voucher_fen) < 0 OR sum(cash_fen) < 0 "
        "UNION ALL SELECT 'reversal ' || r.id FROM ledger_transfers r JOIN ledger_transfers t ON t.id = r.reverses_id "
        "WHERE r.amount_fen <> t.amount_fen OR r.debit_id <> t.credit_id OR r.credit_id <> t.debit_id",
    ),
    Invariant(
        "I18",
        "Nobody is paid out more than is payable to them.",
        "支付不超过应付。",
        "SELECT id FROM ledger_accounts WHERE kind = 'payable' AND debits_pending + debits_posted > credits_posted",
    ),
    Invariant(
        "I19",
        "A transfer is claimed once, a claim is the sum of its lines, and an invoice counts once.",
        "一笔转账只申领一次，申领额等于明细之和，一张发票只用一次。",
        "SELECT 'transfer ' || claimed_transfer_id FROM claim_lines WHERE claimed_transfer_id IS NOT NULL "
        "GROUP BY claimed_transfer_id HAVING count(*) > 1 "
        "UNION ALL SELECT 'line ' || l.id FROM claim_lines l JOIN ledger_transfers t ON t.id = l.transfer_id "
        "WHERE abs(l.amount_fen) > t.amount_fen "
        "UNION ALL SELECT 'claim ' || c.id FROM claims c WHERE c.amount_fen <> "
        "(SELECT coalesce(sum(l.amount_fen), 0) FROM claim_lines l WHERE l.claim_id = c.id) "
        "UNION ALL SELECT 'invoice ' || number FROM voucher_papers WHERE kind = 'invoice' AND withdrawn_at IS NULL "
        "GROUP BY issuer_uscc, number HAVING count(*) > 1",
    ),
    Invariant(
        "I20",
        "Nobody approves what they drafted, checked or applied for, by person.",
        "起草、审核、申请与批准由不同的人完成。",
        "SELECT 'rule ' || id FROM rule_versions WHERE approved_by = drafted_by "
        "UNION ALL SELECT 'review ' || v.id FROM voucher_reviews v JOIN voucher_applications a "
        "ON a.id = v.application_id WHERE v.actor_id = a.applicant_id "
        "UNION ALL SELECT 'twice ' || application_id FROM voucher_reviews GROUP BY application_id, round, actor_id "
        "HAVING count(*) > 1 "
        "UNION ALL SELECT 'bill ' || id FROM bill_versions WHERE decided_by = proposed_by "
        "UNION ALL SELECT 'claim ' || id FROM claims WHERE submitted_by = drafted_by",
    ),
    Invariant(
        "I21",
        "Everything up to the chainer's position is in the audit chain, and the chain has no gap.",
        "审计链记录完整、无缺口。",
        "SELECT 'transfer ' || t.id FROM ledger_transfers t JOIN audit_positions p ON p.outbox = 'transfer' "
        "LEFT JOIN audit_records r ON r.outbox = 'transfer' AND r.source_seq = t.seq "
        "WHERE t.seq <= p.done_seq AND r.seq IS NULL "
        "UNION ALL SELECT 'event ' || e.id FROM events e JOIN audit_positions p ON p.outbox = 'event' "
        "LEFT JOIN audit_records r ON r.outbox = 'event' AND r.source_seq = e.seq "
        "WHERE e.seq <= p.done_seq AND r.seq IS NULL "
        "UNION ALL SELECT 'gap ' || r.seq FROM audit_records r LEFT JOIN audit_records b ON b.seq = r.seq - 1 "
        "WHERE r.seq > 0 AND b.seq IS NULL "
        "UNION ALL SELECT 'head ' || h.size FROM audit_heads h WHERE h.size <> (SELECT count(*) FROM audit_records)",
    ),
    Invariant(
        "I24",
        "Nothing was posted or charged into a month after it was closed.",
        "关账后的月份不再有任何入账。",
        "SELECT 'transfer ' || t.id FROM ledger_transfers t JOIN ledger_closed_months m ON m.month = {event_month} "
        "WHERE t.recorded_at > m.closed_at "
        "UNION ALL SELECT 'charge ' || c.id FROM charges c JOIN ledger_closed_months m ON m.month = c.month "
        "WHERE c.charged_at > m.closed_at",
    ),
)
