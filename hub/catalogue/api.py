"""The catalogue's API: importing the files of routes fills the blueprint. It leaves each route to its file."""

from hub.catalogue import browse_routes, upload_routes, version_routes
from hub.catalogue.blueprint import blueprint

ROUTES = (browse_routes, upload_routes, version_routes)
__all__ = ["ROUTES", "blueprint"]
