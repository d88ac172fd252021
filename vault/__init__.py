"""The vault: the only place that sees a card number. It turns cards into tokens and tokens into sealed credentials."""
