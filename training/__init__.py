"""Data to a cross-lingual fine-tuned checkpoint, with its report."""
