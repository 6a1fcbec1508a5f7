"""Tests of launch and pool."""
