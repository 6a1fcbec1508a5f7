"""The second witness: an engine's own count of each request, kept by a middleware inside stock vLLM. Stdlib only."""
