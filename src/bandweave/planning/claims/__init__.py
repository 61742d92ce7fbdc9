"""What the documentation says in figures, computed again."""
