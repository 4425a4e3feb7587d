"""``lightning-chaos plan``: how a newcomer would get its state in a cluster told in a file."""
