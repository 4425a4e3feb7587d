"""How a newcomer gets the training state: laid out as bytes, cut into shards, pulled from many."""
