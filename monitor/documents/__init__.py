"""Bytes in, documents with their mentions out; pure."""
