"""Where each setting is written in the user's files: value, span, and how a new value is spelled there. Reads, never writes."""
