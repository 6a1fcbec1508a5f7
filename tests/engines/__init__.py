"""Contract tests: what the fast tests' engines say is what stock vLLM says."""
