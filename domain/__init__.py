"""The pure core: money, identifiers, states and outcomes. It imports nothing but the standard library."""
