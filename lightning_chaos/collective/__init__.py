"""Runs the reduce plan of a view: one numbered sequence of operations, exact and abortable."""
