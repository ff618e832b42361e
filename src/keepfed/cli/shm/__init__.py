"""`keepfed shm`: door.py reads the command line, looking.py gathers facts, shown.py and report.py are the answer."""
