"""How a refusal looks: a page for people, problem+json for programs. It leaves the words to the error itself."""

from urllib.parse import urlencode

from flask import Response, make_response, redirect, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from hub.errors import GuanmoError, NotSignedInError
from hub.web import read_cause, render_unexpected, request_id, request_language
from marketplace_ui.layout import translate

TEXTS = {
    400: ("浏览器发来的内容无法识别，请返回后重试。", "What was sent was not understood; go back and try again."),
    404: ("没有这个页面，请检查地址。", "There is no such page; check the address."),
    405: ("这个地址不能直接打开，请从页面上操作。", "This address cannot be opened by itself; use the page's buttons."),
    413: ("上传内容过大，上限 512 MiB。", "What was sent is too large; the limit is 512 MiB."),
}
OTHER = ("出错了，我们已记录。", "Something went wrong; it is recorded.")
PROGRAM_PATHS = ("/api/", "/internal/", "/v1/", "/tryout")


def render_error(error: Exception) -> BaseResponse:
    """The top handler of the web process."""
    error = read_cause(error)
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
        text, code = translate(*TEXTS.get(status, OTHER)), (error.name or "").lower().replace(" ", "_")
    else:
        text, code = translate(*OTHER), "internal"
    page = render_template("error.html", text=text, code=code, status=status, request_id=request_id())
    return make_response(page, status)
