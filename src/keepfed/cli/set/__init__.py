"""`keepfed set`: door.py reads the command line, words.py what was asked for, telling.py says what was done and what was not."""
