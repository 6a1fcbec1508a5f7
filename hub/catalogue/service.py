"""The catalogue's functions under one name, for the rooms above, the worker and the pages.

It holds nothing itself: each function lives in the file of its idea.
"""

from hub.catalogue.bases import PreparedBase, import_base, prepare_base
from hub.catalogue.listing import mark_endpoint, price_version, retire_version, set_access, set_flags
from hub.catalogue.page import Link, ModelPage, price_of, read_page
from hub.catalogue.quarantine import quarantine_version, release_version
from hub.catalogue.registration import register_version
from hub.catalogue.reviewing import list_reviews, review_version, submit_version
from hub.catalogue.rules import ModelTexts, parse_public_name
from hub.catalogue.search import Found, SearchFilters, SearchPage, search_models
from hub.catalogue.servability import Servability, list_blocks, may_serve
from hub.catalogue.taxonomy import Entry, read_taxonomy, set_title
from hub.catalogue.uploads import (
    accept_upload,
    check_files,
    explain_refusal,
    find_upload,
    find_upload_base,
    list_uploads,
    open_upload,
    refuse_upload,
)
from hub.catalogue.versions import (
    find_model,
    find_owned_version,
    find_version,
    lineage_of,
    list_derivatives,
    list_in_state,
    list_versions,
    model_of,
    name_of,
    root_base,
)
from hub.filings.service import explain_standing

__all__ = [
    "Entry",
    "Found",
    "Link",
    "ModelPage",
    "ModelTexts",
    "PreparedBase",
    "SearchFilters",
    "SearchPage",
    "Servability",
    "accept_upload",
    "check_files",
    "explain_refusal",
    "explain_standing",
    "find_model",
    "find_owned_version",
    "find_upload",
    "find_upload_base",
    "find_version",
    "import_base",
    "lineage_of",
    "list_blocks",
    "list_derivatives",
    "list_in_state",
    "list_reviews",
    "list_uploads",
    "list_versions",
    "mark_endpoint",
    "may_serve",
    "model_of",
    "name_of",
    "open_upload",
    "parse_public_name",
    "prepare_base",
    "price_of",
    "price_version",
    "quarantine_version",
    "read_page",
    "read_taxonomy",
    "refuse_upload",
    "register_version",
    "release_version",
    "retire_version",
    "review_version",
    "root_base",
    "search_models",
    "set_access",
    "set_flags",
    "set_title",
    "submit_version",
]
