"""The command line: one file a command. Knows engines and text; holds no weights."""
