"""What runs a program: the native engine, and the reference that says what is right."""
