"""Who gets in: secrets, handshakes, and what listens for them."""
