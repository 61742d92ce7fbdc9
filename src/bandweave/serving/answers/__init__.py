"""Answers: what clients ask for and how it comes back, whatever protocol they speak."""
