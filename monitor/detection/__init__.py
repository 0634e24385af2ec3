"""Opinions in, decisions out; pure, event time only."""
