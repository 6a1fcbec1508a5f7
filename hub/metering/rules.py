"""What makes a usage record acceptable by itself; pure, no session.

It leaves whether its allowance exists to the caller's check.
"""

import re

from serving.contract import UsageRecord

_CONTROL = re.compile(r"[\x00-\x1f]")
MAX_TOKENS = 10**9
MAX_BATCH = 500


def check_record(record: UsageRecord) -> str | None:
    """Return the code of what is wrong with a record, None for a sound one."""
    counts = (record.prompt_tokens, record.cached_tokens, record.completion_tokens)
    if not all(0 <= count <= MAX_TOKENS for count in counts):
        return "tokens_out_of_range"
    if record.cached_tokens > record.prompt_tokens:
        return "cached_above_prompt"
    if record.ended_at < record.started_at:
        return "ends_before_start"
    if record.attempt < 0 or not record.request_id:
        return "bad_key"
    if _CONTROL.search("".join([value for value in vars(record).values() if isinstance(value, str)])):
        return "control_character"
    return None
