"""From text to tokens and back. Knows no arrays and no nodes."""
