"""A container again, the same in everything but the size of its /dev/shm, which no engine can change in one that exists."""
