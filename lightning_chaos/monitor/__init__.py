"""What happens in a run, written down for people and for tests."""
