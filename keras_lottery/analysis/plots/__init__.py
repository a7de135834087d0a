"""Figures of what `kl.analysis` returns."""
