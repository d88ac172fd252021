"""The card network: ISO 8583 messages, one multiplexed link, a journal that decides each effect once, a simulator."""
