"""Measures the ledger against pgbench, COPY and bare commits on the same cluster and disk."""
