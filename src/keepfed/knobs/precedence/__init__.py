"""Which of the places that a scan found counts: files that belong together, and names led to their values."""
