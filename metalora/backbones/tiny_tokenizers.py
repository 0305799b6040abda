"""The tiny FLUX's tokenizers, made in code, of the classes that FLUX's own have: any prompt works without a file."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDS = (
    *("a", "an", "the", "of", "in", "on", "at", "with", "and", "photo", "portrait", "picture", "person", "man"),
    *("woman", "cat", "dog", "face", "smiling", "wearing", "red", "blue"),
)
START, END = "<|startoftext|>", "<|endoftext|>"
SPACE = "\u2581"  # how SentencePiece writes a space


def clip_tokenizer() -> Any:
    """CLIPTokenizerFast that spells every text in bytes; the last two of its 514 words start and end a text."""
    from transformers import CLIPTokenizerFast  # type: ignore[attr-defined]

    letters = _byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters), START, END]
    with tempfile.TemporaryDirectory() as folder:
        _write(folder, "vocab.json", {word: index for index, word in enumerate(words)})
        Path(folder, "merges.txt").write_text("#version: 0.2\n")
        special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
        _write(folder, "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special})
        return CLIPTokenizerFast.from_pretrained(folder)


def t5_tokenizer(max_tokens: int, words: Sequence[str] = WORDS) -> Any:
    """T5TokenizerFast that knows these words and the letters of Latin-1; any other letter is unknown to it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import T5TokenizerFast  # type: ignore[attr-defined]

    letters = [chr(code) for code in (*range(0x21, 0x7F), *range(0xA1, 0x100))]
    scored = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), (SPACE, -2.0)]
    scored += [(SPACE + word, -3.0) for word in words] + [(letter, -4.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=2, byte_fallback=False))
    spaced = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), spaced])
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(str(Path(folder, "tokenizer.json")))
        special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
        settings = {"tokenizer_class": "T5TokenizerFast", "extra_ids": 0, "model_max_length": max_tokens}
        _write(folder, "tokenizer_config.json", {**settings, **special})
        return T5TokenizerFast.from_pretrained(folder)


def _byte_letters() -> list[str]:
    """The 256 printable letters that byte-level tokenizers write bytes with, in an order of our own."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def _write(folder: str, name: str, content: dict[str, Any]) -> None:
    Path(folder, name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
