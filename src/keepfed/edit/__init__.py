"""Which places a wish means, what is written there, and how that looks as a diff. Computes; touches no file."""
