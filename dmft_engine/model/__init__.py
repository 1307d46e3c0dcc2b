"""What a network is made of: activations, losses, forward passes, and the recipe it is trained by."""
