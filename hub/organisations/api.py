"""HTTP of organisations: sign-up, verification, people, sessions, the own account, API keys.

It leaves the rules to `service`; passwords are hashed before a transaction opens.
"""

from typing import Any

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from hub.actor import READERS, Role
from hub.errors import ForbiddenError
from hub.organisations import service
from hub.organisations.bodies import (
    ChangedPassword,
    Credentials,
    KeyPath,
    NewKey,
    NewOrganisation,
    NewUser,
    OrganisationFilter,
    OrganisationPath,
    Preferences,
    Suspension,
    UserPath,
    show_key,
    show_organisation,
    show_user,
)
from hub.organisations.passwords import hash_password
from hub.organisations.rules import FIRST_ROLE, PUBLIC_KINDS, OrganisationKind
from hub.organisations.signin import TooManySignInsError
from hub.web import context, current_actor, find_actor, render_problem, request_language

blueprint = APIBlueprint("organisations", __name__, url_prefix="/api/v1", abp_tags=[Tag(name="organisations")])
PUBLIC = "public"
"""Who signs up without a session, in events."""


@blueprint.errorhandler(TooManySignInsError)
def refuse_too_many(error: TooManySignInsError) -> Response:
    """Answer 429 with the seconds to wait as a header too."""
    response = render_problem(error)
    response.headers["Retry-After"] = str(error.extra["retry_after_s"])
    return response


@blueprint.post("/organisations", summary="Sign up an organisation with its first person")
def sign_up(body: NewOrganisation) -> tuple[dict[str, Any], int]:
    actor_id = _require_kind(body.kind)
    password = hash_password(body.user.password)
    now = context().clock()
    with context().sessions.write() as session:
        organisation = service.create_organisation(
            session,
            name=body.name,
            uscc=body.uscc,
            kind=body.kind,
            slug=body.slug,
            now=now,
            production=context().settings.production,
            actor_id=actor_id,
        )
        user = service.create_user(
            session,
            organisation_id=organisation.id,
            email=body.user.email,
            name=body.user.name,
            password=password,
            role=FIRST_ROLE[body.kind],
            language=request_language(),
            now=now,
            actor_id=actor_id,
            one_time_password=actor_id != PUBLIC,
        )
    return {"organisation": show_organisation(organisation), "user": show_user(user)}, 201


@blueprint.get("/organisations", summary="List organisations (operator, auditor)")
def list_organisations(query: OrganisationFilter) -> dict[str, Any]:
    current_actor(*READERS)
    with context().sessions.read() as session:
        return {"organisations": [show_organisation(row) for row in service.list_organisations(session, query.state)]}


@blueprint.post("/organisations/<organisation_id>/verify", summary="Confirm an organisation's credit code (operator)")
def verify_organisation(path: OrganisationPath) -> dict[str, Any]:
    actor = current_actor()
    with context().sessions.write() as session:
        row = service.verify_organisation(session, actor, path.organisation_id, now=context().clock())
        return show_organisation(row)


@blueprint.post("/organisations/<organisation_id>/suspend", summary="Stop an organisation (operator)")
def suspend_organisation(path: OrganisationPath, body: Suspension) -> dict[str, Any]:
    actor = current_actor()
    with context().sessions.write() as session:
        row = service.suspend_organisation(
            session, actor, path.organisation_id, reason=body.reason, now=context().clock()
        )
        return show_organisation(row)


@blueprint.get("/organisations/<organisation_id>/users", summary="List the people of the own organisation")
def list_users(path: OrganisationPath) -> dict[str, Any]:
    actor = current_actor()
    with context().sessions.read() as session:
        service.require_member(actor, path.organisation_id)
        return {"users": [show_user(row) for row in service.list_users(session, path.organisation_id)]}


@blueprint.post("/organisations/<organisation_id>/users", summary="Add a person to the own organisation")
def add_user(path: OrganisationPath, body: NewUser) -> tuple[dict[str, Any], int]:
    actor = current_actor()
    password = hash_password(body.password)
    with context().sessions.write() as session:
        service.require_manager(session, actor, path.organisation_id)
        user = service.create_user(
            session,
            organisation_id=path.organisation_id,
            email=body.email,
            name=body.name,
            password=password,
            role=body.role,
            now=context().clock(),
            actor_id=actor.user_id,
            one_time_password=True,
        )
    return show_user(user), 201


@blueprint.delete("/organisations/<organisation_id>/users/<user_id>", summary="Remove a person")
def remove_user(path: UserPath) -> tuple[str, int]:
    actor = current_actor()
    with context().sessions.write() as session:
        service.require_manager(session, actor, path.organisation_id)
        service.remove_user(session, actor, path.user_id, now=context().clock())
    return "", 204


@blueprint.post("/sessions", summary="Sign in; the token is shown once")
def sign_in(body: Credentials) -> tuple[dict[str, Any], int]:
    opened = service.sign_in_person(
        context().sessions,
        email=body.email,
        password=body.password,
        ip=request.remote_addr or "unknown",
        now=context().clock(),
    )
    answer = {
        "token": opened.token,
        "expires_at": opened.expires_at.isoformat(),
        "user": show_user(opened.user),
        "organisation": show_organisation(opened.organisation),
    }
    return answer, 201


@blueprint.delete("/sessions", summary="Sign out of this session")
def sign_out() -> tuple[str, int]:
    current_actor()
    with context().sessions.write() as session:
        service.sign_out(session, _read_token())
    return "", 204


@blueprint.get("/me", summary="Who I am")
def show_me() -> dict[str, Any]:
    actor = current_actor()
    with context().sessions.read() as session:
        return {
            "user": show_user(service.find_user(session, actor.user_id)),
            "organisation": show_organisation(service.find_organisation(session, actor.organisation_id)),
        }


@blueprint.patch("/me", summary="Set my language")
def change_me(body: Preferences) -> dict[str, Any]:
    actor = current_actor()
    with context().sessions.write() as session:
        return show_user(service.set_language(session, actor, body.language))


@blueprint.post("/me/password", summary="Set my own password; my other sessions end")
def change_password(body: ChangedPassword) -> dict[str, Any]:
    actor = current_actor()
    user = service.change_password(
        context().sessions,
        actor,
        password=body.present_password,
        new_password=body.new_password,
        ip=request.remote_addr or "unknown",
        now=context().clock(),
        token=_read_token(),
    )
    return show_user(user)


@blueprint.get("/keys", summary="List my organisation's API keys")
def list_keys() -> dict[str, Any]:
    actor = current_actor()
    with context().sessions.read() as session:
        return {"keys": [show_key(row) for row in service.list_keys(session, actor)]}


@blueprint.post("/keys", summary="Create an API key; its text is shown once")
def create_key(body: NewKey) -> tuple[dict[str, Any], int]:
    actor = current_actor()
    secrets = context().secrets
    with context().sessions.write() as session:
        row, text = service.create_key(
            session,
            actor,
            **body.model_dump(),
            pepper=secrets["pepper"].encode(),
            pepper_id=secrets.fingerprint("pepper"),
            now=context().clock(),
        )
    return {**show_key(row), "key": text}, 201


@blueprint.delete("/keys/<key_id>", summary="Revoke an API key")
def revoke_key(path: KeyPath) -> dict[str, Any]:
    actor = current_actor()
    with context().sessions.write() as session:
        return show_key(service.revoke_key(session, actor, path.key_id, now=context().clock()))


def _read_token() -> str:
    return request.headers.get("Authorization", "").partition(" ")[2].strip()


def _require_kind(kind: OrganisationKind) -> str:
    """Return the id of who signs up: `public`, or who enters it for others, an operator where the kind needs one."""
    actor = find_actor()
    if kind in PUBLIC_KINDS:
        return actor.user_id if actor else PUBLIC
    if actor is None or actor.role is not Role.OPERATOR:
        allowed = ", ".join(PUBLIC_KINDS)
        raise ForbiddenError(
            f"Kind '{kind}' is added by an operator only; sign up as one of {allowed}.",
            f"“{kind}”类机构只能由运营方添加；可注册：{allowed}。",
            field="kind",
        )
    return actor.user_id
