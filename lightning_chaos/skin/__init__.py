"""What touches Lightning, apart from the strategy and the callbacks themselves."""
