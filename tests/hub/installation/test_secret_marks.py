"""A database remembers the secrets that it was made with."""

from datetime import datetime

import pytest

from hub.database import Sessions
from hub.installation.service import check_secrets
from hub.secrets import NAMES, PREVIOUS_PEPPER, Secrets, SecretsError


def test_same_secrets_pass_again_and_swapped_ones_are_named(sessions: Sessions, now: datetime) -> None:
    secrets = Secrets({name: f"{name}-text" for name in NAMES})
    for _ in range(2):
        with sessions.write() as session:
            check_secrets(session, secrets, now)
    swapped = Secrets({**secrets.values, "pepper": "another"})
    with pytest.raises(SecretsError, match="pepper"), sessions.write() as session:
        check_secrets(session, swapped, now)
    kept = Secrets({**swapped.values, PREVIOUS_PEPPER: "yet another"})
    with pytest.raises(SecretsError, match="pepper"), sessions.write() as session:
        check_secrets(session, kept, now)
    tokens_may_change = Secrets({**secrets.values, "pool.token": "another"})
    with sessions.write() as session:
        check_secrets(session, tokens_may_change, now)


def test_a_new_pepper_passes_with_the_old_one_beside_it_and_then_alone(sessions: Sessions, now: datetime) -> None:
    first = Secrets({name: f"{name}-text" for name in NAMES})
    second = Secrets({**first.values, "pepper": "second", PREVIOUS_PEPPER: first["pepper"]})
    alone = Secrets({**first.values, "pepper": "second"})
    for secrets in (first, second, second, alone):
        with sessions.write() as session:
            check_secrets(session, secrets, now)
    with pytest.raises(SecretsError, match="pepper"), sessions.write() as session:
        check_secrets(session, first, now)
