"""Tests of hub/compute."""
