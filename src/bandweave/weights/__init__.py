"""From a checkpoint's tensors to packed matrices, and the cache of those."""
