"""How node processes start, meet, live and end."""
