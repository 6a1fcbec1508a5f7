"""What the API of money answers has exactly the fields that its description names, for every role that reads it."""

from typing import Any

import pytest

from tests.ui_vouchers.scene import Scene

READS = (
    ("/corrections", "operator"),
    ("/corrections", "auditor"),
    ("/late-calls", "auditor"),
    ("/orders/{order}/corrections", "factory"),
    ("/bill-lines/{line}/corrections", "factory"),
    ("/redemptions", "factory"),
    ("/redemptions", "auditor"),
    ("/offers", "factory"),
    ("/offers/{offer}", "factory"),
    ("/providers", "factory"),
    ("/rentals", "factory"),
    ("/rentals", "provider"),
    ("/rentals/{rental}", "factory"),
    ("/payouts", "provider"),
    ("/payouts", "operator"),
)


@pytest.mark.parametrize(("path", "who"), READS)
def test_an_answer_has_the_described_fields(scene: Scene, path: str, who: str) -> None:
    client = scene.world.visit(who)
    described = client.get("/api/openapi.json").json
    names = {"order": "order_id", "line": "bill_line_id", "offer": "offer_id", "rental": "rental_id"}
    template = f"/api/v1{path.format(**{key: '{' + name + '}' for key, name in names.items()})}"
    answers = described["paths"][template]["get"]["responses"]
    schema = answers["200"]["content"]["application/json"]["schema"]
    found = client.get(f"/api/v1{path.format(**scene.ids)}")
    assert found.status_code == 200
    assert check_shape(found.json, schema, described["components"]["schemas"], path) > 2


def check_shape(value: Any, schema: Any, schemas: Any, place: str) -> int:
    """Pass a value with exactly the described fields, all the way down; returns how many there were."""
    if "$ref" in schema:
        return check_shape(value, schemas[schema["$ref"].rpartition("/")[2]], schemas, place)
    if "anyOf" in schema:
        wanted = [one for one in schema["anyOf"] if (one.get("type") == "null") == (value is None)]
        assert wanted, place
        return check_shape(value, wanted[0], schemas, place)
    if "enum" in schema:
        assert value in schema["enum"], place
    if schema.get("type") == "array":
        assert value, f"{place} is empty"
        return sum(check_shape(item, schema["items"], schemas, f"{place}[]") for item in value)
    if "properties" in schema:
        assert set(value) == set(schema["properties"]), place
        parts = schema["properties"].items()
        return sum(check_shape(value[name], one, schemas, f"{place}.{name}") for name, one in parts)
    kinds = {"string": str, "integer": int, "boolean": bool, "object": dict, "null": type(None)}
    assert isinstance(value, kinds[schema["type"]]), (place, value)
    return 1
