"""Which machines belong to a cluster: how they announce themselves, and who hears of it."""
