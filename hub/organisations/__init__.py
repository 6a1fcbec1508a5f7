"""Organisations: firms by their credit code, their people, sessions and API keys.

It leaves money, models and what a role may do elsewhere to the rooms above.
"""
