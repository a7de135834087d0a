"""Experiments as a researcher runs them: data, models, a run in a folder, its report."""
