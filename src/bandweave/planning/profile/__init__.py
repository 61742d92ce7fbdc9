"""What was measured of machines and links, and what it predicts."""
