"""The API of vouchers: importing the files of routes fills the blueprint. It leaves each route to its file."""

from hub.vouchers import application_routes, document_routes, grant_routes, programme_routes, related_routes
from hub.vouchers.blueprint import blueprint

ROUTES = (application_routes, document_routes, grant_routes, programme_routes, related_routes)
__all__ = ["ROUTES", "blueprint"]
