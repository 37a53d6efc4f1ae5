"""Decisions: what to try next, what to stop, and the ledger of it all. The only room that imports optuna."""
