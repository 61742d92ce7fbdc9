"""A service under load, played in time."""
