"""Packs the verifier into one file that any Python 3.11 runs; the same sources give the same bytes.

It leaves checking to `verifier`.
"""

import io
import zipfile
from pathlib import Path

from hub.errors import ConflictError

SOURCES = Path(__file__).with_name("verifier")
_EPOCH_OF_ZIP = (1980, 1, 1, 0, 0, 0)
_MAIN = b"import sys\n\nfrom verifier.report import main\n\nsys.exit(main())\n"


def pack_verifier(target: Path) -> None:
    """Write the one-file verifier: `python TARGET EXPORT`.

    Raises:
        ConflictError: the file exists.
    """
    if target.exists():
        raise ConflictError(f"'{target}' exists; name a new file.", f"“{target}”已存在，请换一个名称。")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py", _EPOCH_OF_ZIP), _MAIN)
        for source in sorted(SOURCES.glob("*.py")):
            if source.name != "__main__.py":
                member = zipfile.ZipInfo(f"verifier/{source.name}", _EPOCH_OF_ZIP)
                archive.writestr(member, source.read_bytes())
    target.write_bytes(b"#!/usr/bin/env python3\n" + packed.getvalue())
