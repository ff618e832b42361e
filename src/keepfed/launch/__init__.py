"""Starts an unmodified program so that the Python processes below it load their data through keepfed, and stays its parent.

`docs/design/launch.md` draws it. The child's side is `keepfed/_site`.
"""
