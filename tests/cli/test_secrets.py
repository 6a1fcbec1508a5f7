"""Secrets are made once, private, never overwritten, never printed; exposed or missing ones stop a server."""

import os
import stat
from pathlib import Path

import pytest

from hub.secrets import NAMES, PREVIOUS_PEPPER, SecretsError, make_secrets, read_secrets


def test_secrets_are_made_private_and_once(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        made = make_secrets(tmp_path)
    finally:
        os.umask(previous)
    assert made == list(NAMES)
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    texts = [(tmp_path / "secrets" / name).read_text() for name in NAMES]
    assert [stat.S_IMODE((tmp_path / "secrets" / name).stat().st_mode) for name in NAMES] == [0o600] * len(NAMES)
    assert len(set(texts)) == len(NAMES)
    assert min(len(text) for text in texts) >= 64
    assert make_secrets(tmp_path) == []
    assert [(tmp_path / "secrets" / name).read_text() for name in NAMES] == texts


def test_only_the_missing_one_is_made(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    (tmp_path / "secrets" / "ray.token").unlink()
    assert make_secrets(tmp_path) == ["ray.token"]


def test_a_link_in_place_of_a_secret_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "pepper").symlink_to(tmp_path / "elsewhere")
    assert "pepper" not in make_secrets(tmp_path)
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(SecretsError, match="pepper is missing"):
        read_secrets(tmp_path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_secret_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    make_secrets(tmp_path)
    (tmp_path / "secrets" / "pepper").chmod(mode)
    with pytest.raises(SecretsError, match=r"pepper is readable by others \(chmod 600 .*pepper\)"):
        read_secrets(tmp_path)


def test_all_missing_and_exposed_are_named_with_the_command(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    (tmp_path / "secrets" / "pepper").unlink()
    (tmp_path / "secrets" / "pool.token").write_text("  \n")
    (tmp_path / "secrets" / "audit_key").chmod(0o644)
    with pytest.raises(SecretsError) as refusal:
        read_secrets(tmp_path)
    for part in ("pepper is missing", "pool.token is missing", "audit_key is readable", "guanmo init"):
        assert part in refusal.value.en
    assert "guanmo init" in refusal.value.zh


def test_no_folder_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SecretsError, match="guanmo init"):
        read_secrets(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_secrets_are_never_printed_and_fingerprints_tell_them_apart(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    secrets = read_secrets(tmp_path)
    assert secrets["pepper"] not in repr(secrets)
    assert secrets["pepper"] not in f"{secrets}"
    assert len({secrets.fingerprint(name) for name in NAMES}) == len(NAMES)
    assert all(len(secrets.fingerprint(name)) == 16 for name in NAMES)


def test_the_previous_pepper_is_read_where_it_is_and_as_private(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    assert read_secrets(tmp_path).peppers.previous is None
    old = read_secrets(tmp_path)["pepper"]
    (tmp_path / "secrets" / "pepper").rename(tmp_path / "secrets" / PREVIOUS_PEPPER)
    assert make_secrets(tmp_path) == ["pepper"]
    peppers = read_secrets(tmp_path).peppers
    assert (peppers.previous, peppers.current != peppers.previous) == (old.encode(), True)
    (tmp_path / "secrets" / PREVIOUS_PEPPER).chmod(0o644)
    with pytest.raises(SecretsError, match=r"pepper\.previous is readable"):
        read_secrets(tmp_path)
