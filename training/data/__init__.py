"""Labelled texts: read, mapped to one label scheme, cleaned, checked for leaks, split."""
