"""Measuring what this engine does on a machine and over a link, with its own executor."""
