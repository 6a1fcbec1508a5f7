"""Tuning: a run from the request over plan, quote and training to a version of its own."""
