"""Text to token ids, with the bundle's own tokenizer; no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tagclip.runtime.bundle import Bundle
from tagclip.runtime.errors import BundleManifestError
from tagclip.runtime.query import unknown_words

if TYPE_CHECKING:
    from tokenizers import Encoding


class Tokenizer:
    """A `tokenizers` tokenizer that truncates and pads to one length.

    Args:
        tokenizer_json: what `tokenizers` saved; its own padding and truncation are replaced.
        context_length: tokens in a row.
        pad_id: the token that fills a short row.

    Raises:
        BundleManifestError: `tokenizers` cannot read it, or `pad_id` is not in its vocabulary.
    """

    def __init__(self, tokenizer_json: bytes, context_length: int, pad_id: int) -> None:
        import tokenizers

        try:
            text = tokenizer_json.decode("utf-8")
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
            model = json.loads(text)["model"]
        except Exception as error:  # tokenizers raises bare Exception
            raise BundleManifestError(
                f"the tokenizer cannot be read by tokenizers {tokenizers.__version__}: {error}; "
                "upgrade tokenizers or fetch the bundle again"
            ) from error
        vocabulary_size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        if not 0 <= pad_id < vocabulary_size:
            raise BundleManifestError(
                f"tokenizer.pad_id: expected less than {vocabulary_size}, found {pad_id}"
            )
        # Of the model kinds, Unigram gives the id, the others the token; None where every text has tokens.
        unknown: str | None = model.get("unk_token")
        self._unknown_id: int | None = model.get("unk_id")
        if unknown is not None:
            self._unknown_id = self._tokenizer.token_to_id(unknown)
        self._tokenizer.enable_truncation(context_length)
        self._tokenizer.enable_padding(length=context_length, pad_id=pad_id)
        self.context_length = context_length

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> Tokenizer:
        """The tokenizer of `bundle`."""
        spec = bundle.manifest.tokenizer
        return cls(bundle.read_file(spec.file), spec.context_length, spec.pad_id)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Token ids of each text, cut or padded to the context length.

        Returns:
            int64 (N, context_length); (0, context_length) for no texts.

        Raises:
            QueryError: the vocabulary knows no word of a text (also when it holds none).
        """
        rows = np.empty((len(texts), self.context_length), np.int64)
        for index, encoding in enumerate(self._tokenizer.encode_batch(list(texts))):
            if not self._knows_a_word(texts[index], encoding):
                raise unknown_words(texts[index])
            rows[index] = encoding.ids
        return rows

    def _knows_a_word(self, text: str, encoding: Encoding) -> bool:
        # A known comma says nothing: only tokens that stand for letters count. Padding has an empty span.
        return any(
            token != self._unknown_id and any(character.isalpha() for character in text[start:end])
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
        )
