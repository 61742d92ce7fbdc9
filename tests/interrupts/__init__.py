"""Commands that are ended at random moments: by signals, by terminals that close, by readers that
have had enough. Nothing of them may be left."""
