"""The names of the formats that a command may choose. Names only: quick to import."""

WEIGHT_FORMATS = ("q4", "q8", "mxfp4", "nf4", "ulaw4", "bf16", "f32")
STORED = "stored"  # each matrix in the one nearest to how its checkpoint stores it
RUN_FORMATS = (*WEIGHT_FORMATS, STORED)
QUANTISED_FORMATS = ("q4", "q8", "mxfp4", "nf4", "ulaw4")  # integers with a scale a group
# What `bandweave probe` measures unasked; a run in another format measures that one.
PROBED_FORMATS = ("q4", "q8", "bf16", "f32")
KV_FORMATS = ("f16", "f32")
