"""Status: what the server does at the moment, and how it fares. Knows no HTTP."""
