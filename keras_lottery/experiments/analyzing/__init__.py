"""Analyses of finished runs: what is read, what is trained besides, what is found."""
