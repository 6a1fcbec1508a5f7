"""Artefacts by digest, their identity and lineage, the upload gates, and the mirror to MLflow.

It leaves who may publish, prices and all states to the hub, and imports none of the other packages.
"""
