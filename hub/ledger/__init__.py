"""The ledger: double entry in whole fen, holds, limits, and history that nobody can change."""
