"""Programs, the executors that run them, KV pages, the sampler and the node that joins them."""
