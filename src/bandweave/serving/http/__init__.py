"""HTTP: how requests arrive and answers leave, whatever they say."""
