""" "Try it": one message to one model through the gateway, streamed on as plain text, metered like any other call.

It leaves the call itself to `marketplace_ui.gateway_call`, the key to `tryout_keys`, the pages to `model` and `runs`.
"""

from flask import Blueprint, Response, current_app, redirect, request, stream_with_context
from werkzeug.wrappers import Response as BaseResponse

from hub.errors import InvalidValueError
from hub.tuning.tryouts import request_tryout
from hub.web import context, current_actor
from marketplace_ui.forms import Form
from marketplace_ui.gateway_call import Answer, GatewayCall, open_answer
from marketplace_ui.pages.model import render_model
from marketplace_ui.pages.runs import render_run
from marketplace_ui.tryout_keys import TryoutKeys

blueprint = Blueprint("tryout", __name__)
MAX_MESSAGE = 2_000
MAX_PANES = 2
HEADERS = ("x-guanmo-model-version", "x-guanmo-filing", "x-ai-generated")
"""What a public service must tell with an answer (GB 45438-2025, filing); passed on from the gateway."""


@blueprint.record_once
def keep_keys(state: object) -> None:
    """Give the application its store of try-out keys."""
    state.app.extensions["guanmo_tryout_keys"] = TryoutKeys()  # type: ignore[attr-defined]


@blueprint.post("/tryout")
def try_out() -> Response:
    """Answer one message of the page's script: the text as it comes, or problem+json before it begins."""
    sent = request.get_json(silent=True)
    if not isinstance(sent, dict):
        raise InvalidValueError("Send a JSON object with 'model' and 'message'.", "请以 JSON 发送 model 和 message。")
    answer = _ask(str(sent.get("model", "")), str(sent.get("message", "")))
    headers = {name: answer.headers[name] for name in HEADERS if name in answer.headers}
    headers |= {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    response = Response(stream_with_context(answer.read()), mimetype="text/plain; charset=utf-8", headers=headers)
    response.call_on_close(answer.close)
    return response


@blueprint.post("/models/<organisation>/<name>")
def try_out_as_page(organisation: str, name: str) -> tuple[str, int]:
    """Answer the same form sent without scripts: the page again, with the whole answers."""
    form, answers = _answer_form()
    return render_model(f"{organisation}/{name}", form, answers), 200 if form.ok else 422


@blueprint.post("/runs/<run_id>/tryouts")
def open_checkpoint(run_id: str) -> BaseResponse:
    """Have an evaluated checkpoint loaded for an hour, and show it as it comes up."""
    actor, form = current_actor(), Form.of_request()
    home, now = context().settings.home, context().clock()
    with context().sessions.write() as session:
        chosen = request_tryout(session, actor, run_id, form.whole("step") or 0, home=home, now=now)
    return redirect(f"/runs/{run_id}?step={chosen.step}#try")


@blueprint.post("/runs/<run_id>/try")
def try_out_as_run(run_id: str) -> tuple[str, int]:
    """Answer a checkpoint's form sent without scripts: the run's page again, with the whole answers."""
    form, answers = _answer_form()
    return render_run(run_id, form, answers), 200 if form.ok else 422


def _answer_form() -> tuple[Form, dict[str, str]]:
    """Return the form as typed and the whole answer of each model that it names."""
    current_actor()
    form, answers = Form.of_request(), dict[str, str]()
    for model in request.form.getlist("model")[:MAX_PANES]:
        with form.catching("message"):
            answers[model] = "".join(_ask(model, form.value("message")).read())
    return form, answers


def _ask(model: str, message: str) -> Answer:
    actor, now, message = current_actor(), context().clock(), message.strip()
    if not 0 < len(message) <= MAX_MESSAGE:
        raise InvalidValueError(
            f"The message has {len(message)} characters; send 1 to {MAX_MESSAGE}.",
            f"消息有 {len(message)} 个字符，请输入 1 至 {MAX_MESSAGE} 个。",
            field="message",
        )
    keys: TryoutKeys = current_app.extensions["guanmo_tryout_keys"]
    key = keys.take(context().sessions, context().secrets, actor, now)
    call = GatewayCall(context().settings.gateway_url, key.text, fresh=key.is_fresh(now))
    return open_answer(call, model[:120], message)
