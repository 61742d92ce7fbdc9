"""The finished model as a Hugging Face folder. Knows file formats, no training."""

from __future__ import annotations

import json
from pathlib import Path

import mixture_tensors
import torch
import vocabulary
from jsonfile import write_json
from mixture_model import MixtureModel
from model import DemoModel, Shape
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

PREFIX = "model."

_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "mlp_bias": False,
    "tie_word_embeddings": True,
}
_MIXTURE = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "tie_word_embeddings": False,
    "moe_layer_freq": 1,
    "norm_topk_prob": True,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "rope_interleave": True,
}


def save(folder: Path, model: DemoModel | MixtureModel, tokenizer: Tokenizer) -> None:
    """Write every file an engine needs to load and chat with the model."""
    folder.mkdir(parents=True, exist_ok=True)
    begin = vocabulary.special_id(tokenizer, vocabulary.BEGIN)
    end = vocabulary.special_id(tokenizer, vocabulary.END)
    padding = vocabulary.special_id(tokenizer, vocabulary.PADDING)
    ids = {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": padding}
    write_json(
        folder / "config.json",
        {
            "torch_dtype": "bfloat16",
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "rope_scaling": None,
            "initializer_range": 0.02,
            "use_cache": True,
            **(_MIXTURE if isinstance(model, MixtureModel) else _LLAMA),
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
    tensors = mixture_tensors.named(model) if isinstance(model, MixtureModel) else named(model)
    # A half-written file must never be taken for the model.
    partial = folder / "model.safetensors.partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    partial.replace(folder / "model.safetensors")


def named(model: DemoModel) -> dict[str, Tensor]:
    """The tensors of a checkpoint, in bfloat16."""
    return {
        PREFIX + name: tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
    }


def load(folder: Path) -> tuple[DemoModel | MixtureModel, Tokenizer]:
    """The model in float32 (its values are those of the bfloat16 file) and its tokenizer."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if config["model_type"] == "deepseek_v3":
        return mixture_tensors.load(config, tensors).eval(), tokenizer
    shape = Shape(**{name: config[name] for name in Shape().as_dict()})
    model = DemoModel(shape)
    model.load_state_dict(
        {name.removeprefix(PREFIX): tensor.float() for name, tensor in tensors.items()}
    )
    return model.eval(), tokenizer
