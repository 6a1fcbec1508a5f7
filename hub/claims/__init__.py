"""Claims: what the authority owes for used vouchers, packs that prove it, redemptions, the authority report."""
