"""A network in one machine: relays that shape and cut links, faults as a script, what they cost."""
