"""The training process's side of a node: its I/O loop, and the face training sees of it."""
