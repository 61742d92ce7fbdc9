"""What a checkpoint's tensors hold, block by block, so that copies can be compared."""
