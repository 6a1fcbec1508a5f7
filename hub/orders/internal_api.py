"""HTTP for the gateway: allowances and usage, exactly as the contract has them.

It leaves the rules to the services; bodies are contract messages, not `hub.web.Body`.
"""

from typing import Any

from flask_openapi3.blueprint import APIBlueprint

from hub.metering.service import accept_usage
from hub.orders import service
from hub.web import context, read_message, require_internal
from serving import contract


def register_internal(blueprint: APIBlueprint) -> None:
    """Add the gateway's endpoints to the room's blueprint."""
    blueprint.post("/internal/v1/allowances", doc_ui=False)(grant_allowance)
    blueprint.post("/internal/v1/allowances/close", doc_ui=False)(close_allowance)
    blueprint.post("/internal/v1/usage", doc_ui=False)(post_usage)


def grant_allowance() -> tuple[dict[str, Any], int]:
    """Answer 200 with a slice or 402 with the limit that refused it."""
    require_internal("gateway")
    message = read_message(contract.AllowanceRequest)
    # One firm's requests for money pass one by one; those that wait meanwhile share the next commit.
    answer = context().sessions.combine(
        f"money {message.organisation_id}",
        lambda session: service.grant_allowance(session, message, context().clock()),
    )
    return contract.encode(answer), 402 if isinstance(answer, contract.AllowanceRefusal) else 200


def close_allowance() -> dict[str, Any]:
    """Take a slice back."""
    require_internal("gateway")
    message = read_message(contract.AllowanceClose)
    with context().sessions.write() as session:
        service.close_allowance(session, message, context().clock())
    return {"contract_version": contract.CONTRACT_VERSION}


def post_usage() -> dict[str, Any]:
    """Take a batch of usage records."""
    require_internal("gateway")
    batch = read_message(contract.UsageBatch)
    with context().sessions.write() as session:
        reply = accept_usage(
            session, batch, context().clock(), check=lambda records: service.check_records(session, records)
        )
    return contract.encode(reply)
