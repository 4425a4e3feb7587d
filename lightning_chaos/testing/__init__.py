"""Tools for testing runs, shipped so that users can test their own."""
