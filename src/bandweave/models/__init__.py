"""What is computed: specs, blocks and one file a family. Knows no nodes and no formats."""
