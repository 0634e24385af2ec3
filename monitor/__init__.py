"""Babelwatch: the daemon that turns documents into opinions, and opinions into alerts."""
