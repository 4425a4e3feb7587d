"""Which samples a round takes: the ledger of an epoch, and the loader that follows it."""
