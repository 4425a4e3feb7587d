"""``lightning-chaos replay``: one process recomputes what a run's members did together."""
