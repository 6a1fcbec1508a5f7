"""The catalogue: models, their versions, who may see and call them, uploads, reviews and search.

It leaves filings, prices and artefact formats to the rooms and packages below, running models to `deployments`.
"""
