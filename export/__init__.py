"""A checkpoint to a checked model bundle."""
