"""Tests of hub/payouts."""
