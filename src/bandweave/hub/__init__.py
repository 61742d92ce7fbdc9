"""Models of the Hugging Face hub: what a name means there, and how bytes of its files come here."""
