"""The losses on torch tensors."""
