"""How a refusal looks: a page for people, problem+json for programs. It leaves the words to the error itself."""

from urllib.parse import urlencode

from flask import Response, make_response, redirect, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from hub.errors import GuanmoError, NotSignedInError
from hub.web import render_unexpected, request_id, request_language

PROGRAM_PATHS = ("/api/", "/internal/", "/v1/")


def render_error(error: Exception) -> BaseResponse:
    """The top handler of the web process."""
    if request.path.startswith(PROGRAM_PATHS) or "text/html" not in request.headers.get("Accept", "text/html"):
        return render_unexpected(error)
    if isinstance(error, NotSignedInError):
        # A form that was posted cannot be opened again by its address; the page it stood on can.
        back = request.full_path.rstrip("?") if request.method == "GET" else "/"
        return redirect(f"/sign-in?{urlencode({'next': back})}")
    problem = render_unexpected(error)
    return _render_page(error, problem.status_code)


def _render_page(error: Exception, status: int) -> Response:
    if isinstance(error, GuanmoError):
        text, code = error.text(request_language()), error.code
    elif isinstance(error, HTTPException):
        text, code = error.description or "", (error.name or "").lower().replace(" ", "_")
    else:
        text, code = "", "internal"
    page = render_template("error.html", text=text, code=code, status=status, request_id=request_id())
    return make_response(page, status)
