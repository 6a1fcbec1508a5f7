"""The OpenAI-compatible front door: authenticate, admit, route, stream, settle.

It keeps no database and trains nothing; keys, prices and money come from the hub, replicas from the pool controller.
"""
