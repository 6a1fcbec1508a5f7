"""Documents sent with a form: kept by digest, so that a refused form need not choose its files again.

It leaves which documents are allowed to `hub.filings.evidence`.
"""

import re

from flask import request

from hub.errors import GuanmoError
from hub.filings.evidence import Evidence, keep_evidence
from hub.web import context
from marketplace_ui.forms import Form

_DIGEST = re.compile(r"[0-9a-f]{64}")


def take_paper(form: Form, field: str) -> Evidence | None:
    """Return the document sent under a field, or the one kept from the try before; a refusal stands at the field."""
    file = request.files.get(field)
    if file is None or not file.filename:
        return read_kept(form, field)
    try:
        found = keep_evidence(context().store, file)
    except GuanmoError as error:
        if error.status >= 500:
            raise
        form.refuse(field, error.zh, error.en)
        return None
    form.values[f"kept_{field}"] = f"{found.digest} {found.name}"
    return found


def read_kept(form: Form, field: str) -> Evidence | None:
    """Return the document that the form carries along, None without one."""
    digest, _, name = form.value(f"kept_{field}").partition(" ")
    if not _DIGEST.fullmatch(digest) or not name or not context().store.path(digest).is_dir():
        return None
    return Evidence(digest=digest, name=name[:200])
