"""The API of claims: importing the files of routes fills the blueprint. It leaves each route to its file."""

from hub.claims import claim_routes, redemption_routes, report_routes
from hub.claims.blueprint import blueprint

ROUTES = (claim_routes, redemption_routes, report_routes)
__all__ = ["ROUTES", "blueprint"]
