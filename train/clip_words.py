"""CLIP's tokenizer in the form that devices read, so that a bundle needs no open_clip; the words of any new model."""

from __future__ import annotations

import gzip
from collections.abc import Iterable

from tagclip.train.config import ModelConfig
from tagclip.train.words import Words, build_words

START, END = "<start_of_text>", "<end_of_text>"
MERGES = 49152 - 256 - 2  # of the file's lines, as CLIP takes them; the rest is not used


def clip_words() -> Words:
    """Byte-pair encoding of open_clip's SimpleTokenizer, with the release's cleaning of captions in front.

    Equal to `open_clip.tokenize` of the cleaned caption. Two things are left out: repairs of broken encodings and of
    HTML (open_clip calls ftfy; only curly quotes are made straight here), and that the words "<start_of_text>" and
    "<end_of_text>" in a description would act as such.
    """
    from open_clip.tokenizer import bytes_to_unicode, default_bpe
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    with gzip.open(default_bpe()) as file:
        lines = file.read().decode("utf-8").split("\n")[1 : MERGES + 1]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    letters = list(bytes_to_unicode().values())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *(a + b for a, b in merges), START, END]
    vocabulary = {piece: k for k, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex("[\u02bc\u2018-\u201b]"), "'"),
            # The release's cleaning, which also makes a description the same with or without its full stop.
            normalizers.Replace(Regex('[.!"\u201c-\u201f()*#:;~]'), " "),
            normalizers.Lowercase(),
        ]
    )
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])],
    )
    return Words(str(tokenizer.to_str()), len(pieces))


def words_of(config: ModelConfig, captions: Iterable[str]) -> Words:
    """The tokenizer and, for the small towers, the word vectors of a new model; see `build_words`."""
    return clip_words() if config.clip else build_words(config.word_vectors, captions)
