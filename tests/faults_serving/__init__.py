"""Faults of the serving side: gateways, engines and clients killed, the hub silent; each test prints its figure."""
