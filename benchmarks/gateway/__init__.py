"""Measures the gateway against going straight to the engine and against LiteLLM, all before the same fake engine."""
