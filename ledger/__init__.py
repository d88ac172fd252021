"""The double-entry ledger. `transfers` writes it, `accounts` is its chart, `books` and `settlement` are what uses it.

`statements`, `batches` and `invariants` answer for its past: what stood when, unchanged, and in agreement.
"""
