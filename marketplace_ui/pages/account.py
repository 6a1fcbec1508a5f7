"""Sign-in, sign-out, sign-up, and one's own account: organisation, people, language, sessions.

It leaves the rules of codes, addresses and passwords to `hub.organisations`.
"""

from datetime import datetime

from flask import Blueprint, redirect, render_template, request
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from hub.actor import Actor, Role
from hub.organisations import service
from hub.organisations.passwords import hash_password
from hub.organisations.rules import FIRST_ROLE, PUBLIC_KINDS, OrganisationKind, check_role, make_demo_uscc
from hub.organisations.signin import SignIn, revoke_sessions, sign_in_person
from hub.organisations.tables import Organisation, SignInSession
from hub.web import SESSION_COOKIE, context, current_actor, request_language
from marketplace_ui.forms import Form
from marketplace_ui.layout import local_address, read_notice
from marketplace_ui.people import name_person

blueprint = Blueprint("account", __name__)
FIRST_FREE_SERIAL = 50_000
NOTICES = {
    "signed_up": (
        "注册成功。运营方核验信用代码后即可下单；现在可以浏览和试用。",
        "You are registered. You may order once the operator has verified your credit code; look around meanwhile.",
    ),
    "added": (
        "已添加人员，请把登录邮箱和一次性密码告知本人；本人首次登录后须另设密码。",
        "Added; tell the person their address and one-time password. They set their own when they first sign in.",
    ),
    "own_password": (
        "您仍在使用他人已知的一次性密码，请先设置本人密码；在此之前您不能复核他人办理的事项。",
        "Somebody else knows your one-time password. Set your own now; until then you cannot approve what others did.",
    ),
    "password": ("已设置本人密码，其他登录已退出。", "Your own password is set; your other sessions ended."),
    "removed": ("已移除人员，其登录立即失效。", "The person was removed; their sessions ended."),
    "language": ("已保存语言。", "The language is saved."),
}


@blueprint.route("/sign-in", methods=["GET", "POST"])
def sign_in() -> Response | tuple[str, int]:
    form = Form.of_request()
    back = local_address(request.args.get("next", "/"))
    if request.method == "POST":
        with form.catching("email", "password"):
            return _enter(form.value("email"), form.value("password"), back)
    return render_template("account/sign_in.html", form=form, back=back), 200 if form.ok else 422


@blueprint.post("/sign-out")
def sign_out() -> Response:
    with context().sessions.write() as session:
        service.sign_out(session, request.cookies.get(SESSION_COOKIE, ""))
    response = redirect("/")
    response.delete_cookie(SESSION_COOKIE)
    return response


@blueprint.route("/sign-up", methods=["GET", "POST"])
def sign_up() -> Response | tuple[str, int]:
    form = Form.of_request() if request.method == "POST" else Form({"kind": OrganisationKind.FACTORY})
    if request.method == "POST":
        with form.catching():
            _register(form)
        if form.ok:
            return _enter(form.value("email"), form.value("password"), "/account?done=signed_up")
    with context().sessions.read() as session:
        sample = _suggest_code(session)
    return render_template(
        "account/sign_up.html", form=form, kinds=PUBLIC_KINDS, sample=sample
    ), 200 if form.ok else 422


@blueprint.get("/account")
def show_account() -> str:
    return _show(current_actor(), Form())


@blueprint.route("/account/people", methods=["GET", "POST"])
def add_person() -> Response | tuple[str, int]:
    actor, form = current_actor(), Form.of_request()
    if request.method == "GET":
        return redirect("/account")
    name = form.text("name", required=True)
    role = form.choice("role", Role)
    with form.catching():
        if form.ok and role is not None:
            password = hash_password(form.value("password"))
            with context().sessions.write() as session:
                service.require_manager(session, actor, actor.organisation_id)
                service.create_user(
                    session,
                    organisation_id=actor.organisation_id,
                    email=form.value("email"),
                    name=name,
                    password=password,
                    role=role,
                    now=context().clock(),
                    actor_id=actor.user_id,
                    one_time_password=True,
                )
    return redirect("/account?done=added") if form.ok else (_show(actor, form), 422)


@blueprint.post("/account/people/<user_id>/remove")
def remove_person(user_id: str) -> Response:
    actor = current_actor()
    with context().sessions.write() as session:
        service.require_manager(session, actor, actor.organisation_id)
        service.remove_user(session, actor, user_id, now=context().clock())
    return redirect("/account?done=removed")


@blueprint.post("/account/language")
def set_language() -> Response:
    actor = current_actor()
    with context().sessions.write() as session:
        language = service.set_language(session, actor, request.form.get("language", "")).language
    response = redirect("/account?done=language")
    response.set_cookie("guanmo_language", language, max_age=31_536_000, samesite="Lax")
    return response


@blueprint.route("/account/password", methods=["GET", "POST"])
def change_password() -> Response | tuple[str, int]:
    actor, form = current_actor(), Form.of_request()
    if request.method == "GET":
        return redirect("/account")
    with form.catching("present_password", "new_password"):
        service.change_password(
            context().sessions,
            actor,
            password=form.value("present_password"),
            new_password=form.value("new_password"),
            ip=request.remote_addr or "unknown",
            now=context().clock(),
            token=request.cookies.get(SESSION_COOKIE, ""),
        )
    return redirect("/account?done=password") if form.ok else (_show(actor, form), 422)


@blueprint.post("/account/sessions/end")
def end_sessions() -> Response:
    """Sign out everywhere, here too: the way out after a lost laptop."""
    actor = current_actor()
    with context().sessions.write() as session:
        revoke_sessions(session, actor.user_id)
    response = redirect("/sign-in")
    response.delete_cookie(SESSION_COOKIE)
    return response


def _show(actor: Actor, form: Form) -> str:
    with context().sessions.read() as session:
        organisation = service.find_organisation(session, actor.organisation_id)
        people = service.list_users(session, actor.organisation_id)
        return render_template(
            "account/account.html",
            form=form,
            me=service.find_user(session, actor.user_id),
            organisation=organisation,
            people=people,
            names={row.added_by: name_person(session, row.added_by) for row in people if row.added_by},
            roles=_list_roles(organisation),
            sessions=_list_sessions(session, actor, context().clock()),
            notice=read_notice(NOTICES),
        )


def _enter(email: str, password: str, target: str) -> Response:
    opened: SignIn = sign_in_person(
        context().sessions,
        email=email,
        password=password,
        ip=request.remote_addr or "unknown",
        now=context().clock(),
    )
    response = redirect("/account?done=own_password" if opened.user.one_time_password else target)
    response.set_cookie(
        SESSION_COOKIE,
        opened.token,
        expires=opened.expires_at,
        httponly=True,
        secure=request.is_secure,
        samesite="Lax",
    )
    if "guanmo_language" not in request.cookies:
        response.set_cookie("guanmo_language", opened.user.language, max_age=31_536_000, samesite="Lax")
    return response


def _register(form: Form) -> None:
    name, person = form.text("name", required=True), form.text("person", required=True)
    kind, slug = form.choice("kind", OrganisationKind), form.optional("slug", most=40)
    if kind not in PUBLIC_KINDS:
        form.refuse("kind", "请选择机构类型。", "Choose a kind of organisation.")
    if not form.ok or kind is None:
        return
    password, now = hash_password(form.value("password")), context().clock()
    with context().sessions.write() as session:
        organisation = service.create_organisation(
            session,
            name=name,
            uscc=form.value("uscc"),
            kind=kind,
            slug=slug,
            now=now,
            production=context().settings.production,
            actor_id="public",
        )
        service.create_user(
            session,
            organisation_id=organisation.id,
            email=form.value("email"),
            name=person,
            password=password,
            role=FIRST_ROLE[kind],
            language=request_language(),
            now=now,
        )


def _suggest_code(session: Session) -> str:
    """Return a demonstration code that nobody has yet, empty in production."""
    if context().settings.production:
        return ""
    count = session.scalar(select(func.count()).select_from(Organisation)) or 0
    return make_demo_uscc(FIRST_FREE_SERIAL + count % FIRST_FREE_SERIAL)


def _list_roles(organisation: Organisation) -> list[Role]:
    fitting = []
    for role in Role:
        form = Form()
        with form.catching():
            check_role(organisation.kind, role)
        if form.ok:
            fitting.append(role)
    return fitting


def _list_sessions(session: Session, actor: Actor, now: datetime) -> list[SignInSession]:
    query = select(SignInSession).where(SignInSession.user_id == actor.user_id, SignInSession.expires_at > now)
    return list(session.scalars(query.order_by(SignInSession.created_at.desc())))
