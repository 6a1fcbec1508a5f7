"""Payouts: what providers, integrators and owners of bases have earned, on its way to their bank accounts."""
