"""PairMerging: a text to the tokens of a BPE vocabulary, by pairs and their ranks.

The ``tokenizers`` library does the work. Knows merges and pre-tokenizers; knows no special tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

from bandweave.shown import shown
from bandweave.text.files import TextError
from bandweave.text.library import library_errors
from bandweave.text.pre_tokenizers import PreTokenizer
from bandweave.text.score_merging import SPACE


class PairMerging:
    """Threads may share one."""

    def __init__(
        self,
        ids: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        pre: PreTokenizer,
        *,
        of_bytes: bool,
        where: str,
    ) -> None:
        """``of_bytes``: whether tokens are spelled in the byte alphabet; else they are text with
        ``SPACE`` for a space, and bytes without one have tokens ``<0x00>`` to ``<0xFF>``.
        ``TextError`` where the library refuses the vocabulary, or a merge makes no token of it."""
        for first, second in merges:
            if first + second not in ids:  # the library would panic, on standard error
                raise TextError(
                    f"{where}: the tokenizer cannot be used: a merge makes {shown(first + second)},"
                    " which is no token; download it again"
                )
        with library_errors(f"{where}: the tokenizer cannot be used", "; download it again"):
            model = models.BPE(
                dict(ids),
                list(merges),
                ignore_merges=pre.ignore_merges,
                byte_fallback=not of_bytes,
            )
            self._library = tokenizers.Tokenizer(model)
            steps: list[pre_tokenizers.PreTokenizer] = [
                pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns
            ]
            if of_bytes:
                steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
            else:
                self._library.normalizer = normalizers.Replace(" ", SPACE)
            self._library.pre_tokenizer = pre_tokenizers.Sequence(steps)

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        with library_errors("the text cannot be encoded"):
            return self._library.encode(text, add_special_tokens=False).ids
