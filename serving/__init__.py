"""The data plane: message types, engine launch, replica pool and gateway.

It knows nothing of the hub's database and imports none of the other top-level packages.
"""
