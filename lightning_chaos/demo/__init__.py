"""``lightning-chaos demo``: a cluster on this machine that grows, is hurt and goes on."""
