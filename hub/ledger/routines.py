"""The ledger's routines inside the database: what a row may be, and posting in one call.

SQLite has no routines; `hub.ledger.embedded` does the same in the hub's process, which is the one writer.
`ledger_post_one` and `ledger_post_many` say `posted` only where nothing is in the way: then everything is written.
`stored` means that the same was posted before, and NULL that nothing was changed; why, `hub.ledger.planning` knows. It
leaves filling in their arguments to `hub.ledger.at_once`.
"""

SIDES_HOLD = """
CREATE OR REPLACE FUNCTION ledger_sides_hold(limited bigint, credit_limited bigint, debits_pending bigint,
  debits_posted bigint, credits_pending bigint, credits_posted bigint)
RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $guanmo$
BEGIN
  RETURN debits_pending >= 0 AND debits_posted >= 0 AND credits_pending >= 0 AND credits_posted >= 0
    AND (limited = 0 OR debits_pending + debits_posted <= credits_posted)
    AND (credit_limited = 0 OR credits_pending + credits_posted <= debits_posted);
END $guanmo$"""

TRANSFER_HOLDS = """
CREATE OR REPLACE FUNCTION ledger_transfer_holds(kind text, amount_fen bigint, debit_id text, credit_id text,
  pending_id text, reverses_id text)
RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $guanmo$
BEGIN
  RETURN amount_fen > 0 AND debit_id <> credit_id
    AND (kind IN ('post', 'void')) = (pending_id IS NOT NULL)
    AND (reverses_id IS NULL OR kind = 'single');
END $guanmo$"""

TRANSFER = """id, group_id, position, kind, debit_id, credit_id, amount_fen, code, business_type, business_id,
    rule_version_id, price_version_id, actor_id, event_at, recorded_at, fingerprint"""
ENTRY = """account_id, account_version, transfer_id, leg, amount_fen, debits_pending, debits_posted,
    credits_pending, credits_posted, recorded_at"""

# Accounts are moved in the order of their ids, which is the lock; what was moved is moved back where something later
# stands in the way, because a savepoint would cost more than the two updates.
POST_ONE = f"""
CREATE OR REPLACE FUNCTION ledger_post_one(p_id text, p_group text, p_position bigint, p_kind text, p_debit text,
  p_credit text, p_amount bigint, p_code text, p_business_type text, p_business text, p_rule text, p_price text,
  p_actor text, p_event_at bigint, p_now bigint, p_fingerprint text, p_month text, p_expires_at bigint)
RETURNS text LANGUAGE plpgsql AS $guanmo$
DECLARE
  held bigint := CASE p_kind WHEN 'pending' THEN p_amount ELSE 0 END;
  posted bigint := p_amount - held;
  debit record;
  credit record;
  debit_first boolean := p_debit COLLATE "C" < p_credit;
  moved integer := 0;
BEGIN
  FOR turn IN 1..2 LOOP
    IF debit_first = (turn = 1) THEN
      UPDATE ledger_accounts SET debits_pending = debits_pending + held, debits_posted = debits_posted + posted,
        version = version + 1
      WHERE id = p_debit AND (limited = 0 OR debits_pending + debits_posted + p_amount <= credits_posted)
      RETURNING debits_pending, debits_posted, credits_pending, credits_posted, version INTO debit;
    ELSE
      UPDATE ledger_accounts SET credits_pending = credits_pending + held, credits_posted = credits_posted + posted,
        version = version + 1
      WHERE id = p_credit AND (credit_limited = 0 OR credits_pending + credits_posted + p_amount <= debits_posted)
      RETURNING debits_pending, debits_posted, credits_pending, credits_posted, version INTO credit;
    END IF;
    EXIT WHEN NOT FOUND;
    moved := turn;
  END LOOP;
  IF moved = 2 AND NOT EXISTS (SELECT FROM ledger_closed_months WHERE month = p_month) THEN
    INSERT INTO ledger_transfers ({TRANSFER})
    VALUES (p_id, p_group, p_position, p_kind, p_debit, p_credit, p_amount, p_code, p_business_type, p_business,
      p_rule, p_price, p_actor, p_event_at, p_now, p_fingerprint) ON CONFLICT DO NOTHING;
    IF FOUND THEN
      INSERT INTO ledger_entries ({ENTRY})
      VALUES (p_debit, debit.version, p_id, 'debit', p_amount, debit.debits_pending, debit.debits_posted,
          debit.credits_pending, debit.credits_posted, p_now),
        (p_credit, credit.version, p_id, 'credit', p_amount, credit.debits_pending, credit.debits_posted,
          credit.credits_pending, credit.credits_posted, p_now);
      IF p_expires_at IS NOT NULL THEN
        INSERT INTO ledger_hold_leases (hold_id, expires_at, renewed_at) VALUES (p_id, p_expires_at, p_now);
      END IF;
      RETURN 'posted';
    END IF;
  END IF;
  IF moved = 2 OR (moved = 1 AND debit_first) THEN
    UPDATE ledger_accounts SET debits_pending = debits_pending - held, debits_posted = debits_posted - posted,
      version = version - 1 WHERE id = p_debit;
  END IF;
  IF moved = 2 OR (moved = 1 AND NOT debit_first) THEN
    UPDATE ledger_accounts SET credits_pending = credits_pending - held, credits_posted = credits_posted - posted,
      version = version - 1 WHERE id = p_credit;
  END IF;
  -- A repeat of what is stored is answered here; its fingerprint says its group and its place in it too.
  IF EXISTS (SELECT FROM ledger_transfers WHERE id = p_id AND fingerprint = p_fingerprint)
    AND NOT EXISTS (SELECT FROM ledger_transfers WHERE group_id = p_group AND position > 0) THEN
    RETURN 'stored';
  END IF;
  RETURN NULL;
END $guanmo$"""  # noqa: S608  names are constants above

# The caller has added up what each account is moved by and needs at most (`p_moves`, 7 numbers an account: count, four
# sides, highest debit and credit over) and where each leg stands by then (`p_legs`, 10 numbers a leg: account,
# transfer, is it the debit, amount, count, four sides, time); only what to add them to is unknown before the lock.
# Texts are lists with ASCII's separators, which cost a tenth of reading JSON. Without the settings, the planner reads
# whole tables for lists whose length it does not know, and plans at each call.
POST_MANY = f"""
CREATE OR REPLACE FUNCTION ledger_post_many(p_accounts text, p_moves bigint[], p_ids text, p_legs bigint[],
  p_transfers text, p_leases text, p_months text, p_groups text)
RETURNS text LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $guanmo$
DECLARE
  accounts text[] := string_to_array(p_accounts, E'\\x1e');
  ids text[] := string_to_array(p_ids, E'\\x1e');
  leases text[];
  found_ids text[];
  version bigint[];
  dp bigint[];
  d bigint[];
  cp bigint[];
  c bigint[];
  fits boolean;
  written integer;
BEGIN
  SELECT array_agg(a.id), array_agg(a.version), array_agg(debits_pending), array_agg(debits_posted),
    array_agg(credits_pending), array_agg(credits_posted),
    bool_and((limited = 0 OR debits_pending + debits_posted - credits_posted + p_moves[7 * n - 1] <= 0)
      AND (credit_limited = 0 OR credits_pending + credits_posted - debits_posted + p_moves[7 * n] <= 0))
  INTO found_ids, version, dp, d, cp, c, fits
  FROM (SELECT locked.*, row_number() OVER () AS n FROM (
    SELECT * FROM ledger_accounts WHERE id = ANY(accounts) ORDER BY id COLLATE "C" FOR NO KEY UPDATE) locked) a;
  IF fits IS NOT TRUE OR found_ids <> accounts
    OR EXISTS (SELECT FROM ledger_closed_months WHERE month = ANY(string_to_array(p_months, E'\\x1e'))) THEN
    RETURN NULL;
  END IF;
  PERFORM FROM ledger_transfers WHERE id = ANY(ids);
  IF FOUND THEN
    RETURN NULL;
  END IF;
  PERFORM FROM ledger_transfers WHERE group_id = ANY(string_to_array(p_groups, E'\\x1e')) AND position = 0;
  IF FOUND THEN
    RETURN NULL;
  END IF;
  INSERT INTO ledger_transfers ({TRANSFER})
  SELECT f[1], f[2], f[3]::bigint, f[4], f[5], f[6], f[7]::bigint, f[8], f[9], f[10], NULLIF(f[11], ''),
    NULLIF(f[12], ''), f[13], f[14]::bigint, f[15]::bigint, f[16]
  FROM (SELECT string_to_array(line, E'\\x1f') AS f FROM unnest(string_to_array(p_transfers, E'\\x1e')) line
    OFFSET 0) fields
  ON CONFLICT DO NOTHING;
  GET DIAGNOSTICS written = ROW_COUNT;
  IF written = 0 THEN
    RETURN NULL;
  ELSIF written <> cardinality(ids) THEN
    -- Another has posted a part of it since the look above.
    RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = 'a part of these transfers was posted by another';
  END IF;
  INSERT INTO ledger_entries ({ENTRY})
  SELECT accounts[a], version[a] + p_legs[i + 5], ids[p_legs[i + 2]],
    CASE p_legs[i + 3] WHEN 1 THEN 'debit' ELSE 'credit' END, p_legs[i + 4], dp[a] + p_legs[i + 6],
    d[a] + p_legs[i + 7], cp[a] + p_legs[i + 8], c[a] + p_legs[i + 9], p_legs[i + 10]
  FROM (SELECT i, p_legs[i + 1] AS a FROM generate_series(0, cardinality(p_legs) - 10, 10) i OFFSET 0) leg;
  UPDATE ledger_accounts a SET version = a.version + p_moves[i + 1], debits_pending = debits_pending + p_moves[i + 2],
    debits_posted = debits_posted + p_moves[i + 3], credits_pending = credits_pending + p_moves[i + 4],
    credits_posted = credits_posted + p_moves[i + 5]
  FROM (SELECT 7 * (n - 1) AS i, account_id FROM unnest(accounts) WITH ORDINALITY u(account_id, n) OFFSET 0) moved
  WHERE a.id = moved.account_id;
  IF p_leases <> '' THEN
    leases := string_to_array(p_leases, E'\\x1e');
    INSERT INTO ledger_hold_leases (hold_id, expires_at, renewed_at)
    SELECT leases[i], leases[i + 1]::bigint, leases[i + 2]::bigint
    FROM generate_series(1, cardinality(leases), 3) i;
  END IF;
  RETURN 'posted';
END $guanmo$"""  # noqa: S608  names are constants above

POSTGRESQL = (SIDES_HOLD, TRANSFER_HOLDS, POST_ONE, POST_MANY)
"""The first two are what the tables' CHECKs call: one call costs a third of the same sums spelled out, which PostgreSQL
parses again for every statement on the table."""
