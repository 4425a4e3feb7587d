"""The peer: a small process beside each worker that keeps the node's membership alive."""
