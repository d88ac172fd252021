"""How this platform talks to Temporal: client, data converter, payload codec, search attributes, task queues."""
