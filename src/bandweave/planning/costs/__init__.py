"""What a deployment's steps cost, and what fits."""
