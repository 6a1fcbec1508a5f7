"""Metering: usage records of hosted calls, taken once each, and the engines' own counts beside them. No money."""
