"""Writes FOLDER.gguf beside each FOLDER: `python convert.py LLAMA_CPP FOLDER...`.

By llama.cpp's converter, in F32 and without a vocabulary. Needs what the converter needs, torch and
transformers; prints a line for each folder.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import logging
import sys
from pathlib import Path


def main(root: Path, folders: list[Path]) -> None:
    sys.path[:0] = [str(root), str(root / "gguf-py")]
    import gguf
    import torch
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    logging.disable(logging.WARNING)
    for folder in folders:
        try:
            fields = ModelBase.load_hparams(folder, False)
            base = get_model_class(get_model_architecture(fields, ModelType.TEXT))
            kind = type(
                base.__name__,
                (base,),
                {"set_vocab": lambda self: None, "model_arch": base.model_arch},
            )
            with torch.inference_mode():
                target = folder.with_suffix(".gguf")
                kind(folder, gguf.LlamaFileType.ALL_F32, target, eager=True).write()
        except BaseException as error:  # the converter exits where it knows no model
            print(f"{folder.name} does not convert: {type(error).__name__}: {error}", flush=True)
        else:
            print(f"{folder.name} converts", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
