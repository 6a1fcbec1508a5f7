"""The pages, one module per part of the marketplace: load, call a service, show."""
