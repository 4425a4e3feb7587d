"""The paper's mathematics: pure functions, numpy at most."""
