"""Scripts that reproduce the paper's figures through the client, against a running server.

`dmft serve` in one terminal; `python -m examples.figure_1 --data cifar10.npz` in another.
"""
