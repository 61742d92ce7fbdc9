"""Which models the experiments run, at full size and small, and the files of each.

Makes checkpoints of random weights and their GGUF files once and keeps them in a folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bandweave.checkpoints import layout
from bandweave.synth.model import synthesise
from bandweave.synth.shapes import find_shape
from benchmarks.rounds import say


@dataclass(frozen=True, kw_only=True)
class Model:
    """A shape by name, with some of its sizes changed."""

    shape: str
    changes: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        words = [f"{key}{value}" for key, value in self.changes.items() if key != "context"]
        return "-".join([self.shape, *words])


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much an experiment does. Tokens and rounds; ``contexts`` in tokens, ``streams`` of
    answers at once; ``sizes`` are models from small to large."""

    model: Model
    rounds: int
    prompt_tokens: int = 64
    new_tokens: int = 64
    prefill_tokens: int = 512
    share_context: int = 512
    contexts: tuple[int, ...] = ()
    streams: tuple[int, ...] = ()
    sizes: tuple[Model, ...] = ()


_LONG = 16640  # the longest context that is measured, with an answer

FULL = Scale(
    model=Model(shape="tinyllama-1.1b", changes={"context": _LONG}),
    rounds=12,
    contexts=(128, 512, 2048, 4096, 8192, 16384),
    streams=(1, 2, 4, 8, 16, 32, 64),
    sizes=(
        Model(shape="smollm2-135m"),
        Model(shape="tinyllama-1.1b", changes={"layers": 11}),
        Model(shape="tinyllama-1.1b", changes={"context": _LONG}),
        Model(shape="mistral-7b", changes={"layers": 12}),
    ),
)
QUICK = Scale(
    model=Model(shape="tiny"),
    rounds=2,
    prompt_tokens=16,
    new_tokens=16,
    prefill_tokens=64,
    share_context=64,
    contexts=(32, 128),
    streams=(1, 4),
    sizes=(Model(shape="tiny"), Model(shape="tiny", changes={"layers": 4})),
)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A mixture of experts, and a dense model that reads about as many bytes for a token."""

    mixture: Model
    dense: Model


_SMALL = {"hidden": 256, "vocab": 512, "experts": 16, "expert_intermediate": 64}
_PAIRS = (
    Pair(
        mixture=Model(shape="qwen3-30b-a3b", changes={"layers": 8}),
        dense=Model(shape="tinyllama-1.1b", changes={"layers": 16}),
    ),
    Pair(
        mixture=Model(shape="gpt-oss-20b", changes={"layers": 8}),
        dense=Model(shape="mistral-7b", changes={"layers": 7}),
    ),
    Pair(
        mixture=Model(shape="deepseek-v3", changes={"layers": 4, "experts": 64}),
        dense=Model(shape="mistral-7b", changes={"layers": 14}),
    ),
)
_QUICK_PAIRS = tuple(
    Pair(
        mixture=Model(shape="qwen3-30b-a3b", changes={**_SMALL, "layers": layers}),
        dense=Model(shape="tiny"),
    )
    for layers in (2, 4)
)


def pairs_of(scale: Scale) -> tuple[Pair, ...]:
    """The mixtures of an experiment."""
    return _QUICK_PAIRS if scale.model == QUICK.model else _PAIRS


@dataclass(frozen=True, kw_only=True)
class Store:
    """The folder that keeps checkpoints and GGUF files."""

    path: Path

    def folder(self, model: Model) -> Path:
        """The model's Hugging Face folder, made where it is missing."""
        folder = self.path / model.name
        if not (folder / layout.CONFIG).exists():
            say(f"writing {folder}")
            for file in folder.glob("*") if folder.exists() else ():
                file.unlink()  # of a run that was interrupted
            synthesise(find_shape(model.shape, **model.changes), folder)
        return folder

    def vocab_size(self, model: Model) -> int:
        """Tokens that the model knows."""
        return find_shape(model.shape, **model.changes).fields["vocab_size"]

    def gguf(self, model: Model, weight_format: str) -> Path:
        """The model's GGUF file with all products in ``"q4"`` or ``"q8"``."""
        target = self.path / f"{model.name}-{weight_format}.gguf"
        if not target.exists():
            from benchmarks.gguf_export import export

            say(f"writing {target}")
            export(self.folder(model), target, weight_format)
        return target
