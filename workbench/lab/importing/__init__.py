"""Samples that other programs asked and scored, read into the store as runs."""
