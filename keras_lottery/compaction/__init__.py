"""Physically smaller models with the same function: units that nothing reads are taken out.

`tracing` reads a model's graph, `flows` says which channels of which tensors must go
together, `rules` and its neighbours what each kind of layer reads, `planning` which channels
are needed, `rebuilding` makes the smaller model of layers that `copying` copies.
"""
