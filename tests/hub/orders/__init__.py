"""Tests of hub/orders."""
