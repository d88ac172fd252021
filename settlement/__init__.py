"""Settlement and reconciliation: what was cleared, compared with what is ours, and paid out."""
