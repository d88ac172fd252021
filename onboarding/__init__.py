"""Knowing the customer: documents, screening, decisions, tiers; closing an account and erasing a person."""
