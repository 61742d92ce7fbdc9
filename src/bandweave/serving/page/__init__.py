"""The page that shows what goes on."""
