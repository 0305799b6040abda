"""Compare methods over people, prompts and seeds: planned, run in pieces that can stop, reported."""
