"""`keepfed scan`: door.py reads the command line, the other files are one kind of answer each."""
