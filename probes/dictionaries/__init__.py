"""Sparse dictionaries of activations: autoencoders and transcoders, trained, measured, kept and exchanged."""
