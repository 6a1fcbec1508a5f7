"""Measures the trainer against TRL and LLaMA-Factory, and the service against the bare trainer."""
