"""The child's side of `keepfed run`: what other people's interpreters execute. Imports nothing of the house."""
