"""The folder store: immutable, checkable by coreutils, nothing half-made."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from registry.artifacts import ArtifactRefusedError, format_sums, parse_sums
from registry.store import ArtifactCorruptError, ArtifactMissingError, FolderStore


def test_added_folder_is_read_only_and_coreutils_agree(tmp_path: Path, adapter: Path) -> None:
    store = FolderStore(tmp_path / "artifacts")
    artifact = store.add_folder(adapter)
    folder = store.path(artifact.digest)
    subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    assert hashlib.sha256((folder / "SHA256SUMS").read_bytes()).hexdigest() == artifact.digest
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}
    assert folder.stat().st_mode & 0o777 == 0o555
    assert store.uri(artifact.digest) == f"file://{folder}"
    assert artifact.size_bytes == sum(path.stat().st_size for path in adapter.iterdir())
    assert store.verify(artifact.digest) == store.get(artifact.digest) == artifact
    with store.open(artifact.digest, "adapter_config.json") as stream:
        assert stream.read() == (adapter / "adapter_config.json").read_bytes()


def test_same_content_twice_is_one_artifact(tmp_path: Path, adapter: Path) -> None:
    store = FolderStore(tmp_path / "artifacts")
    first = store.add_folder(adapter)
    again = store.add_folder(store.path(first.digest))
    assert again == first
    assert [path.name for path in store.root.iterdir()] == [first.digest]


def test_names_choose_the_files(tmp_path: Path, adapter: Path) -> None:
    (adapter / "optimizer.bin").write_bytes(b"x")
    artifact = FolderStore(tmp_path / "artifacts").add_folder(adapter, names=["adapter_config.json"])
    assert list(artifact.files) == ["adapter_config.json"]


def test_changed_bytes_are_named(tmp_path: Path, adapter: Path) -> None:
    store = FolderStore(tmp_path / "artifacts")
    digest = store.add_folder(adapter).digest
    victim = store.path(digest) / "adapter_model.safetensors"
    victim.chmod(0o644)
    with victim.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\x01")
    with pytest.raises(ArtifactCorruptError, match=r"adapter_model\.safetensors") as caught:
        store.verify(digest)
    assert caught.value.field == "adapter_model.safetensors"


def test_extra_and_missing_files_are_named(tmp_path: Path, adapter: Path) -> None:
    store = FolderStore(tmp_path / "artifacts")
    digest = store.add_folder(adapter).digest
    folder = store.path(digest)
    folder.chmod(0o755)
    (folder / "extra.py").write_text("x")
    with pytest.raises(ArtifactCorruptError, match=r"extra\.py"):
        store.verify(digest)
    (folder / "extra.py").unlink()
    (folder / "adapter_config.json").unlink()
    with pytest.raises(ArtifactCorruptError, match=r"adapter_config\.json"):
        store.get(digest)


def test_listing_beside_the_files_must_agree(tmp_path: Path, adapter: Path) -> None:
    (adapter / "SHA256SUMS").write_text(f"{'0' * 64}  adapter_config.json\n")
    store = FolderStore(tmp_path / "artifacts")
    with pytest.raises(ArtifactRefusedError, match="does not agree"):
        store.add_folder(adapter)
    assert list(store.root.iterdir()) == []


def test_listing_is_sorted_and_read_strictly() -> None:
    files = {"b": "0" * 64, "a": "1" * 64}
    raw = format_sums(files)
    assert raw == f"{'1' * 64}  a\n{'0' * 64}  b\n".encode()
    assert parse_sums(raw) == files
    for wrong in (
        raw + b"\n",
        raw.replace(b"  a", b" *a"),
        b"".join(reversed(raw.splitlines(keepends=True))),
        raw[:-1],
    ):
        with pytest.raises(ArtifactRefusedError, match="sorted"):
            parse_sums(wrong)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a b", ".hidden", "SHA256SUMS", "x" * 129, "a\nb", ""])
def test_odd_names_are_refused(tmp_path: Path, adapter: Path, name: str) -> None:
    with pytest.raises(ArtifactRefusedError):
        FolderStore(tmp_path / "artifacts").add_folder(adapter, names=[name])


def test_links_pipes_and_folders_are_refused(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "artifacts")
    for kind in ("link", "pipe", "folder"):
        src = tmp_path / kind
        src.mkdir()
        odd = src / "config.json"
        if kind == "link":
            odd.symlink_to("/etc/hostname")
        elif kind == "pipe":
            os.mkfifo(odd)
        else:
            odd.mkdir()
        with pytest.raises(ArtifactRefusedError, match=r"config\.json"):
            store.add_folder(src)
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize("digest", ["../../etc", "A" * 64, "a" * 63, ""])
def test_digest_is_no_path(tmp_path: Path, digest: str) -> None:
    with pytest.raises(ArtifactRefusedError):
        FolderStore(tmp_path).path(digest)


def test_unknown_digest_and_file_are_missing(tmp_path: Path, adapter: Path) -> None:
    store = FolderStore(tmp_path / "artifacts")
    with pytest.raises(ArtifactMissingError):
        store.path("0" * 64)
    digest = store.add_folder(adapter).digest
    with pytest.raises(ArtifactMissingError, match="nothing"):
        store.open(digest, "nothing")


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A real write error of the kernel: the process may write files of 4 KiB at most."""
    src = tmp_path / "src"
    src.mkdir()
    (src / "a.txt").write_bytes(b"a")
    (src / "b.bin").write_bytes(b"b" * 100_000)
    code = (
        "import resource, sys; from pathlib import Path; from registry.store import FolderStore, StoreFullError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: FolderStore(Path(sys.argv[2])).add_folder(Path(sys.argv[1]))\n"
        "except StoreFullError as error: print(error.code, '100001 bytes' in str(error))\n"
    )
    root = tmp_path / "artifacts"
    done = subprocess.run([sys.executable, "-c", code, src, root], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["store_full", "True"]
    assert list(root.iterdir()) == []


def test_killed_copy_is_swept_and_running_one_is_not(tmp_path: Path, adapter: Path) -> None:
    store = FolderStore(tmp_path / "artifacts")
    digest = store.add_folder(adapter).digest
    code = (
        "import os, sys, signal; from pathlib import Path; from registry.partials import open_partial\n"
        "with open_partial(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').write_bytes(b'x'); print('ready', flush=True); signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, store.root], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert store.sweep_partials() == 0
        child.kill()
        child.wait()
    download = store.root / f".partial-{'a' * 64}"
    download.mkdir()
    assert len(list(store.root.iterdir())) == 3
    assert store.sweep_partials() == 1
    assert {path.name for path in store.root.iterdir()} == {digest, download.name}, "the pool sweeps its own"
