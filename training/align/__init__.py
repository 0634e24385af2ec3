"""Alignment: translated training texts, code-switching by dictionaries, and encoders pulled together on parallel sentences."""
