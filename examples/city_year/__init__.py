"""A year of a whole city, simulated through the hub's own services and verified from the raw meter to the last fen."""
