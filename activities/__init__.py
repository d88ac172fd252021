"""Activities touch the world: each translates, calls one service, and translates back."""
