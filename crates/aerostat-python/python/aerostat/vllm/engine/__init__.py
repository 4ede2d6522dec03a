"""Engines, and how they are set up."""
