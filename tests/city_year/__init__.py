"""Tests of the simulated city year."""
