"""The verifier of audit exports: the standard library only, no database, none of our other code.

A second implementation on purpose: it shares nothing with what writes exports. `guanmo audit verifier FILE` packs it
into one file that any Python 3.11 runs.
"""
