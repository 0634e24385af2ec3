"""Kafka: reading, writing, offsets, and the embedded broker."""
