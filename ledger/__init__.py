"""The double-entry ledger. `transfers` writes it, `queries` reads and checks it, `books` is what payments use of it."""
