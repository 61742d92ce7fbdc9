"""Speculation: guesses at the tokens that come next, which a step then checks all at once."""
