"""What stood in a place before, and who changed it: the journal, and git."""
