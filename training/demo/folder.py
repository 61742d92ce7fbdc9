"""The finished model as a Hugging Face folder. Knows file formats, no training."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import vocabulary
from jsonfile import write_json
from model import DemoModel, Shape
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

PREFIX = "model."


def save(folder: Path, model: DemoModel, tokenizer: Tokenizer) -> None:
    """Write every file an engine needs to load and chat with the model."""
    folder.mkdir(parents=True, exist_ok=True)
    begin = vocabulary.special_id(tokenizer, vocabulary.BEGIN)
    end = vocabulary.special_id(tokenizer, vocabulary.END)
    padding = vocabulary.special_id(tokenizer, vocabulary.PADDING)
    ids = {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": padding}
    write_json(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "torch_dtype": "bfloat16",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "attention_dropout": 0.0,
            "tie_word_embeddings": True,
            "rope_scaling": None,
            "initializer_range": 0.02,
            "use_cache": True,
            **model.shape.as_dict(),
            **ids,
        },
    )
    write_json(
        folder / "generation_config.json",
        {
            "do_sample": False,
            "max_new_tokens": 160,
            **ids,
        },
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": vocabulary.BEGIN,
            "eos_token": vocabulary.END,
            "pad_token": vocabulary.PADDING,
            "unk_token": None,
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": model.shape.max_position_embeddings,
            "added_tokens_decoder": {
                str(vocabulary.special_id(tokenizer, token)): {
                    "content": token,
                    "special": True,
                    "normalized": False,
                    "lstrip": False,
                    "rstrip": False,
                    "single_word": False,
                }
                for token in vocabulary.SPECIAL
            },
            "chat_template": vocabulary.CHAT_TEMPLATE,
        },
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    tensors = {
        PREFIX + name: tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
    }
    # A half-written file must never be taken for the model.
    partial = folder / "model.safetensors.partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    partial.replace(folder / "model.safetensors")


def load(folder: Path) -> tuple[DemoModel, Tokenizer]:
    """The model in float32 (its values are those of the bfloat16 file) and its tokenizer."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = Shape(**{name: config[name] for name in Shape().as_dict()})
    model = DemoModel(shape)
    tensors = load_file(folder / "model.safetensors")
    model.load_state_dict(
        {name.removeprefix(PREFIX): tensor.float() for name, tensor in tensors.items()}
    )
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))
