"""Compute: who rents devices out, at which price, and who holds which of them now."""
