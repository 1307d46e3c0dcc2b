"""The theory that needs no sampled network: Gaussian kernels, algebra, single neurons, second order."""
