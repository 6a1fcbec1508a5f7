"""Log lines as JSON, one object each, without anything that a client said.

What is worth a line is decided where it happens; keeping and turning files is left to whoever started the process.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


class JsonLines(logging.Formatter):
    """`at`, `level`, `logger`, `message`, the fields given as `extra={"fields": {...}}`, and a traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def write_json_lines() -> None:
    """Write JSON lines to standard error: our own from INFO, others' from WARNING."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("serving").setLevel(logging.INFO)
