"""A database remembers the secrets that it was made with."""

from datetime import datetime

import pytest

from hub.database import Sessions
from hub.installation.service import check_secrets
from hub.secrets import NAMES, Secrets, SecretsError


def test_same_secrets_pass_again_and_swapped_ones_are_named(sessions: Sessions, now: datetime) -> None:
    secrets = Secrets({name: f"{name}-text" for name in NAMES})
    for _ in range(2):
        with sessions.write() as session:
            check_secrets(session, secrets, now)
    swapped = Secrets({**secrets.values, "pepper": "another"})
    with pytest.raises(SecretsError, match="pepper"), sessions.write() as session:
        check_secrets(session, swapped, now)
    tokens_may_change = Secrets({**secrets.values, "pool.token": "another"})
    with sessions.write() as session:
        check_secrets(session, tokens_may_change, now)
