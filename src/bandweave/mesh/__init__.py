"""The links between nodes: secret, channel, handshake, listener and rendezvous; no models."""
