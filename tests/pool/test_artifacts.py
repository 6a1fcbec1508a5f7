"""Folders by digest: copied whole or not at all, and refused by name when they differ."""

import hashlib
from pathlib import Path

import pytest

from serving.pool.artifacts import fetch_artifact, verify_base
from serving.pool.errors import ArtifactError
from tests.pool.world import make_adapter, make_base

ZERO = b"0" * 64


def test_copies_what_is_listed_and_nothing_else(tmp_path: Path) -> None:
    digest, source = make_adapter(tmp_path / "new", tmp_path / "elsewhere")
    (source / "stowaway.py").write_text("import os")
    folder = fetch_artifact(source.as_uri(), digest, tmp_path / "store")
    assert folder == tmp_path / "store" / digest
    assert sorted(path.name for path in folder.iterdir()) == ["SHA256SUMS", "adapter_config.json"]
    assert sorted((tmp_path / "store").iterdir()) == [folder], "no scratch folder is left"
    assert fetch_artifact(source.as_uri(), digest, tmp_path / "store") == folder


def test_a_copy_that_differs_leaves_nothing(tmp_path: Path) -> None:
    digest, source = make_adapter(tmp_path / "new", tmp_path / "elsewhere")
    (source / "adapter_config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"digest_mismatch: .*adapter_config\.json") as caught:
        fetch_artifact(source.as_uri(), digest, tmp_path / "store")
    assert caught.value.code == "digest_mismatch"
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize(
    "uri",
    [
        *("s3://bucket/x", "file://host/x", "relative", "file:relative", "file://[host/x", "ftp://me:s3cret@host:x/y"),
        "s3://me:s3cret@bucket/x?token=s3cret#s3cret",
    ],
)
def test_uris_of_elsewhere_are_refused_and_no_secret_of_theirs_is_said(tmp_path: Path, uri: str) -> None:
    with pytest.raises(ArtifactError, match="unsupported_uri") as refused:
        fetch_artifact(uri, "a" * 64, tmp_path)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("line", [b"nonsense\n", ZERO + b"  ../up\n", ZERO + b"  caf\xe9\n", ZERO + b"  a\0b\n"])
def test_sums_that_lead_out_or_name_no_file_are_refused(tmp_path: Path, line: bytes) -> None:
    digest = hashlib.sha256(line).hexdigest()
    folder = tmp_path / "store" / digest
    folder.mkdir(parents=True)
    (folder / "SHA256SUMS").write_bytes(line)
    with pytest.raises(ArtifactError, match="bad_sums_line"):
        fetch_artifact(folder.as_uri(), digest, tmp_path / "store")


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="artifact_missing"):
        fetch_artifact((tmp_path / "no").as_uri(), "a" * 64, tmp_path / "store")
    with pytest.raises(ArtifactError, match="artifact_missing"):
        verify_base(tmp_path.as_uri(), "a" * 64)


def test_a_base_is_verified_where_it_has_sums(tmp_path: Path) -> None:
    plain = make_base(tmp_path / "plain")
    assert verify_base(plain.as_uri(), "a" * 64) == plain
    (plain / "SHA256SUMS").write_text("")
    with pytest.raises(ArtifactError, match="digest_mismatch"):
        verify_base(plain.as_uri(), "a" * 64)
