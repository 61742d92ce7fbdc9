"""From a request's tokens to an answer's: steps, pages, sampling, speculation."""
