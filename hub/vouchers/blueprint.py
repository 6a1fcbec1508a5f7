"""The blueprint of vouchers, which the files of routes fill. It leaves every route to them."""

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

blueprint = APIBlueprint("vouchers", __name__, url_prefix="/api/v1", abp_tags=[Tag(name="vouchers")])
