"""A model as programs use it: text in, text out. What a command and a server share."""
