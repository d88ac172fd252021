"""Knowing the customer: cases and their documents, screening against a watch list, closure and erasure."""
