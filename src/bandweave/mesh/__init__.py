"""How bytes get from one process to another: addresses, sockets, channels. Knows no models."""
