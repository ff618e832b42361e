"""Settings inside containers: their files read as a scan reads a folder, and edited where they really lie."""
