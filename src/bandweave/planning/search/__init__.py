"""Which machines, and which share of the model for each."""
