"""Facts about the machine: read-only, without torch, usable on a machine that is broken."""
