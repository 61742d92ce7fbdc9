"""The names of the formats that a command may choose."""

WEIGHT_FORMATS = ("q4", "q8", "mxfp4", "nf4", "ulaw4", "bf16", "f32")
KV_FORMATS = ("f16", "f32")
