"""The names of the formats that a command may choose. Names only: quick to import."""

WEIGHT_FORMATS = ("q4", "q8", "mxfp4", "nf4", "ulaw4", "bf16", "f32")
STORED = "stored"  # each matrix in the one nearest to how its checkpoint stores it
AUTO = "auto"  # as stored where a GGUF file has the weights, else q4
RUN_FORMATS = (*WEIGHT_FORMATS, STORED, AUTO)
QUANTISED_FORMATS = ("q4", "q8", "mxfp4", "nf4", "ulaw4")  # integers with a scale a group
#: As GGUF stores blocks of weights: what other weights cannot be made into.
BLOCK_FORMATS = (
    "q4_1", "q5_0", "q5_1", "iq4_nl", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_xs"
)  # fmt: skip
INTEGER_FORMATS = (*QUANTISED_FORMATS, *BLOCK_FORMATS)  # products of integers, in groups of 32
# What `bandweave probe` measures unasked; a run in another format measures that one.
PROBED_FORMATS = ("q4", "q8", "bf16", "f32")
KV_FORMATS = ("f16", "f32")
