"""`keepfed recreate`: the command line, and what is said about what came of it."""
