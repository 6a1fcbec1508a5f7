"""A base and an adapter, written fresh for each test."""

from pathlib import Path

import pytest

from tests.registry.builders import write_adapter, write_base


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A sound base folder."""
    return write_base(tmp_path / "base")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A sound adapter folder for `base`."""
    return write_adapter(tmp_path / "adapter")
