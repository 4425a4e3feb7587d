"""``lightning-chaos storm``: a user's own script under many faults, and a report to show."""
