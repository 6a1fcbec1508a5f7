"""Faults on purpose: killed at each statement, databases crashed, replies lost, clocks turned; the money stays."""
