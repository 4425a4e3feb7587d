"""Membership as a state machine without I/O: no sockets, clocks, threads or torch."""
