"""From files to slices of tensors. Knows no nodes and no formats."""
