"""Faults on purpose: killed at every statement, databases crashed, replies lost, clocks and rules turned; money stays."""
