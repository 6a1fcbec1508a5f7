"""Filings: which base model is filed (备案) with whom until when, and what was decided for derivatives.

It leaves what may be served to `catalogue`, which asks for the standing and never copies it.
"""
