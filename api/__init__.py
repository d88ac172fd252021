"""The HTTP API: thin. It authenticates, validates, starts workflows, waits for their early answers, and reads."""
