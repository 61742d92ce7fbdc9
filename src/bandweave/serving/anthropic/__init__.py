"""The shapes of Anthropic's API."""
