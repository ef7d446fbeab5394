"""Training: the loss of a batch, its gradients, and the steps that follow them."""
