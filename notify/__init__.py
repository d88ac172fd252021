"""Notifications: a fact about a payment becomes a push message, an SMS, an e-mail and an in-app notice, each once."""
