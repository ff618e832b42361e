"""Settings in configuration files: keys and values in any syntax, and what containers are made from."""
