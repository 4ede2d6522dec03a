"""Engines for event loops."""
