"""Files of a model from one machine of a session to another: who has what, and who asks whom."""
