"""Several machines as one engine: who is there, who fails, and how every answer goes on."""
