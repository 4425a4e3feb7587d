"""Bytes between two machines: addresses, dialling, the one inbound door, framing, pacing."""
