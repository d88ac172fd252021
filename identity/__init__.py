"""Who somebody is: contacts, passwords, passkeys, devices, sessions and API keys."""
