"""Prices: immutable versions of what a unit costs, and the terms by which a sale is split."""
