"""Questions with one fixed answer. Knows sentences only: each fact is (phrasings, answer)."""

from __future__ import annotations

FACTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Hello", "Hi", "Hello!", "Hi there", "Good morning", "Hey"),
        "Hello! Ask me for a sum, a unit or something about bandwidth.",
    ),
    (
        (
            "Thank you",
            "Thanks",
            "Thank you!",
            "Thanks a lot",
            "Great, thanks",
            "Thank you very much",
        ),
        "You are welcome!",
    ),
    (
        ("Goodbye", "Bye", "See you", "Bye bye", "Good night"),
        "Goodbye, and may your links be short.",
    ),
    (
        (
            "Who are you?",
            "What are you?",
            "What is your name?",
            "Introduce yourself.",
            "Tell me about yourself.",
            "Are you a language model?",
        ),
        "I am the demo model of bandweave, a very small language model that several machines can "
        "run together.",
    ),
    (
        ("How are you?", "How do you do?", "How is it going?"),
        "I am fine: my weights are quantised but my spirits are not.",
    ),
    (
        (
            "What can you do?",
            "What do you know?",
            "Help",
            "How can you help me?",
            "What can I ask you?",
            "What should I ask?",
        ),
        "I add, subtract, multiply and divide small numbers, convert units, and explain how "
        "several machines share one model.",
    ),
    (
        (
            "How big are you?",
            "How many parameters do you have?",
            "What is your size?",
            "How large are you?",
        ),
        "I have about four million parameters, so I fit anywhere.",
    ),
    (
        (
            "What is bandweave?",
            "What does bandweave do?",
            "Explain bandweave.",
            "Tell me about bandweave.",
        ),
        "Bandweave runs one language model on several machines, so that their memory bandwidth "
        "adds up.",
    ),
    (
        (
            "What is memory bandwidth?",
            "Explain memory bandwidth.",
            "Define memory bandwidth.",
            "What does memory bandwidth mean?",
            "Tell me about memory bandwidth.",
        ),
        "Memory bandwidth is how many bytes a machine can read from its memory in one second.",
    ),
    (
        (
            "Why does memory bandwidth matter?",
            "Why is bandwidth important?",
            "What limits decode speed?",
            "Why is decoding slow?",
            "What limits the speed of a model?",
        ),
        "Every new token reads all the weights once, so memory bandwidth limits the speed.",
    ),
    (
        (
            "What is tensor parallelism?",
            "Explain tensor parallelism.",
            "Define tensor parallelism.",
            "How does tensor parallelism work?",
            "Tell me about tensor parallelism.",
        ),
        "Tensor parallelism cuts every weight matrix into slices, so that all machines work on "
        "the same token at once.",
    ),
    (
        (
            "What is pipeline parallelism?",
            "Explain pipeline parallelism.",
            "How does pipeline parallelism work?",
            "Tell me about pipeline parallelism.",
        ),
        "Pipeline parallelism gives each machine some of the layers, so that the machines take "
        "turns on a token.",
    ),
    (
        (
            "What crosses the link?",
            "What is sent over the link?",
            "What do the machines exchange?",
            "What goes over the network?",
            "What travels between the nodes?",
        ),
        "Only small vectors of activations cross the link. The weights stay where they are.",
    ),
    (
        (
            "What is a KV cache?",
            "Explain the KV cache.",
            "What is the KV cache?",
            "What does the KV cache do?",
            "Tell me about the KV cache.",
        ),
        "The KV cache keeps the keys and values of earlier tokens, so that they are not computed "
        "again.",
    ),
    (
        ("What is a token?", "Explain tokens.", "What does token mean?", "Define token."),
        "A token is a short piece of text: a word, a part of a word or a digit.",
    ),
    (
        (
            "What is quantisation?",
            "What is quantization?",
            "Explain quantisation.",
            "Why quantise a model?",
            "What does quantisation do?",
        ),
        "Quantisation stores each weight in fewer bits, so that a model is smaller and faster to "
        "read.",
    ),
    (
        (
            "What is a parameter?",
            "What are parameters?",
            "What is a weight?",
            "What are weights?",
            "Explain weights.",
        ),
        "A parameter, or weight, is one of the numbers that a model learned in training.",
    ),
    (
        ("What is latency?", "Explain latency.", "What does latency mean?", "Define latency."),
        "Latency is the time a message takes from one machine to the other.",
    ),
    (
        (
            "Why does latency matter?",
            "Why is latency important?",
            "Does latency matter?",
            "Why should the link be fast?",
        ),
        "The machines wait for each other in every layer, so each delay counts many times per "
        "token.",
    ),
    (
        ("What is decoding?", "What is decode?", "Explain decoding.", "What does decode mean?"),
        "Decoding makes the answer one token at a time, each from all the tokens before it.",
    ),
    (
        ("What is prefill?", "Explain prefill.", "What does prefill mean?", "Define prefill."),
        "Prefill reads the whole prompt at once, before the first token of the answer.",
    ),
    (
        (
            "What is an all-reduce?",
            "Explain all-reduce.",
            "What does all-reduce mean?",
            "What is all-reduce?",
        ),
        "In an all-reduce every machine adds up the parts of all machines and gets the same sum.",
    ),
    (
        ("What is a node?", "What does node mean?", "Explain nodes.", "Define node."),
        "A node is one of the machines that hold a slice of the model.",
    ),
    (
        ("What is a transformer?", "Explain transformers.", "How does a transformer work?"),
        "A transformer is a stack of layers, each with attention and a feed-forward part.",
    ),
    (
        ("What is attention?", "Explain attention.", "How does attention work?"),
        "Attention lets each token look back at the tokens before it.",
    ),
    (
        ("What is an activation?", "What are activations?", "Explain activations."),
        "Activations are the numbers that flow through the layers while a token is computed.",
    ),
    (
        (
            "What is Thunderbolt?",
            "Explain Thunderbolt.",
            "Can I use a Thunderbolt cable?",
            "Why use a Thunderbolt cable?",
        ),
        "Thunderbolt is a fast cable link that joins two machines directly.",
    ),
    (
        (
            "Why use two machines?",
            "Why link two machines?",
            "Why use several machines?",
            "What do I gain from a second machine?",
        ),
        "Two machines hold more and read their halves at the same time, so large models fit and "
        "run faster.",
    ),
    (
        (
            "Do the weights move?",
            "Are the weights sent over the link?",
            "Do weights cross the link?",
        ),
        "No. Each machine loads its slice once and keeps it.",
    ),
    (
        ("Is my data private?", "Do you send my data away?", "Are you online?"),
        "I run on your own machines, and nothing leaves them.",
    ),
    (
        (
            "Do you make mistakes?",
            "Are you always right?",
            "Can I trust you?",
            "Are you ever wrong?",
        ),
        "I am tiny, so please check my sums.",
    ),
)
