"""Invariants of the ledger by itself: sums, limits, versions, holds, and history that nobody changed.

It leaves bills, vouchers and meters to `bill_invariants`.
"""

from hub.ledger.law import Invariant

INVARIANTS = (
    Invariant(
        "I1",
        "Every group's debits equal its credits, leg by leg, and no entry is without its transfer.",
        "每组分录借贷相等，且每条分录都有其转账。",
        "SELECT t.group_id FROM ledger_transfers t LEFT JOIN ledger_entries e ON e.transfer_id = t.id "
        "AND e.amount_fen = t.amount_fen "
        "AND e.account_id = CASE e.leg WHEN 'debit' THEN t.debit_id ELSE t.credit_id END GROUP BY t.group_id "
        "HAVING sum(CASE e.leg WHEN 'credit' THEN e.amount_fen ELSE -e.amount_fen END) <> 0 "
        "OR count(e.transfer_id) <> 2 * count(DISTINCT t.id) "
        "UNION ALL SELECT e.transfer_id FROM ledger_entries e LEFT JOIN ledger_transfers t ON t.id = e.transfer_id "
        "WHERE t.id IS NULL",
    ),
    Invariant(
        "I2",
        "Over all accounts debits equal credits, pending and posted each.",
        "全部账户借贷合计相等，冻结与入账各自成立。",
        "SELECT * FROM (SELECT sum(credits_pending) - sum(debits_pending) AS pending, "
        "sum(credits_posted) - sum(debits_posted) AS posted FROM ledger_accounts) s "
        "WHERE pending <> 0 OR posted <> 0",
    ),
    Invariant(
        "I3",
        "Stored balances are what the transfers give.",
        "账户余额等于由转账重算的结果。",
        "WITH legs AS ("
        "SELECT t.debit_id AS id, {pending} AS dp, {posted} AS d, 0 AS cp, 0 AS c "
        "FROM ledger_transfers t LEFT JOIN ledger_transfers h ON h.id = t.pending_id UNION ALL "
        "SELECT t.credit_id, 0, 0, {pending}, {posted} "
        "FROM ledger_transfers t LEFT JOIN ledger_transfers h ON h.id = t.pending_id), "
        "sums AS (SELECT id, sum(dp) AS dp, sum(d) AS d, sum(cp) AS cp, sum(c) AS c FROM legs GROUP BY id) "
        "SELECT a.id FROM ledger_accounts a LEFT JOIN sums s ON s.id = a.id "
        "WHERE a.debits_pending <> coalesce(s.dp, 0) OR a.debits_posted <> coalesce(s.d, 0) "
        "OR a.credits_pending <> coalesce(s.cp, 0) OR a.credits_posted <> coalesce(s.c, 0)",
    ),
    Invariant(
        "I4",
        "An account's versions run from 1 to its own without a gap.",
        "账户版本号从 1 连续至当前，无缺口。",
        "SELECT a.id FROM ledger_accounts a LEFT JOIN (SELECT account_id, count(*) AS entries, "
        "min(account_version) AS low, max(account_version) AS top FROM ledger_entries GROUP BY account_id) e "
        "ON e.account_id = a.id WHERE a.version <> coalesce(e.entries, 0) OR a.version <> coalesce(e.top, 0) "
        "OR coalesce(e.low, 1) <> 1",
    ),
    Invariant(
        "I5",
        "The database itself refuses to change or delete history.",
        "数据库自身拒绝修改或删除历史记录。",
        "{unprotected}",
    ),
    Invariant(
        "I6",
        "An id is posted once, with its fingerprint, in a group whose positions run from 0.",
        "同一编号仅入账一次并存有指纹，组内序号从 0 连续。",
        "SELECT min(group_id) FROM ledger_transfers GROUP BY id HAVING count(*) > 1 OR max(length(fingerprint)) <> 64 "
        "UNION ALL SELECT group_id FROM ledger_transfers GROUP BY group_id "
        "HAVING min(position) <> 0 OR max(position) <> count(*) - 1",
    ),
    Invariant(
        "I7",
        "A hold ends at most once, posts at most what it held, and gives back to where it came from.",
        "冻结至多了结一次，扣划不超出冻结额，余额退回原账户。",
        "SELECT h.id FROM ledger_transfers h JOIN ledger_transfers t ON t.pending_id = h.id GROUP BY h.id "
        "HAVING count(*) > 1 OR max(CASE WHEN h.kind <> 'pending' OR t.amount_fen > h.amount_fen "
        "OR (t.kind = 'void' AND t.amount_fen <> h.amount_fen) OR t.debit_id <> h.debit_id "
        "OR t.credit_id <> h.credit_id OR t.seq < h.seq THEN 1 ELSE 0 END) = 1",
    ),
    Invariant(
        "I8",
        "No limited account was beyond its limit after any posting, and no side is negative.",
        "受限账户任何时点均未超限，各方金额非负。",
        "SELECT e.account_id, e.account_version FROM ledger_entries e JOIN ledger_accounts a ON a.id = e.account_id "
        "WHERE (a.limited = 1 AND e.debits_pending + e.debits_posted > e.credits_posted) "
        "OR (a.credit_limited = 1 AND e.credits_pending + e.credits_posted > e.debits_posted) "
        "OR e.debits_pending < 0 OR e.debits_posted < 0 OR e.credits_pending < 0 OR e.credits_posted < 0 "
        "UNION ALL SELECT id, version FROM ledger_accounts "
        "WHERE (limited = 1 AND debits_pending + debits_posted > credits_posted) "
        "OR (credit_limited = 1 AND credits_pending + credits_posted > debits_posted) "
        "OR debits_pending < 0 OR debits_posted < 0 OR credits_pending < 0 OR credits_posted < 0",
    ),
    Invariant(
        "I22",
        "The entries alone rebuild every balance, so an export can be imported to the same books.",
        "仅凭分录即可重建全部余额，导出可还原。",
        "SELECT a.id FROM ledger_accounts a JOIN ledger_entries e ON e.account_id = a.id "
        "AND e.account_version = a.version "
        "WHERE e.debits_pending <> a.debits_pending OR e.debits_posted <> a.debits_posted "
        "OR e.credits_pending <> a.credits_pending OR e.credits_posted <> a.credits_posted "
        "UNION ALL SELECT e.account_id FROM ledger_entries e LEFT JOIN ledger_entries b "
        "ON b.account_id = e.account_id AND b.account_version = e.account_version - 1 "
        "JOIN ledger_transfers t ON t.id = e.transfer_id LEFT JOIN ledger_transfers h ON h.id = t.pending_id "
        "WHERE e.debits_pending - coalesce(b.debits_pending, 0) <> CASE e.leg WHEN 'debit' THEN {pending} ELSE 0 END "
        "OR e.debits_posted - coalesce(b.debits_posted, 0) <> CASE e.leg WHEN 'debit' THEN {posted} ELSE 0 END "
        "OR e.credits_pending - coalesce(b.credits_pending, 0) "
        "<> CASE e.leg WHEN 'credit' THEN {pending} ELSE 0 END "
        "OR e.credits_posted - coalesce(b.credits_posted, 0) "
        "<> CASE e.leg WHEN 'credit' THEN {posted} ELSE 0 END",
    ),
    Invariant(
        "I23",
        "No table can hold a float.",
        "任何表都不能存放浮点数。",
        "{inexact}",
    ),
)
