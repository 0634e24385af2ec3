"""Batching and running the model."""
