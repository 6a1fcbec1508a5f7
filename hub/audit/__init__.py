"""Audit: every event and every transfer on one hash chain, its Merkle tree signed outside the database."""
