"""The embedded model: a tokenizer made from the catalogue's titles and a small Llama of random weights.

It stands between a newcomer and a download. What is written is an ordinary Hugging Face folder; training it on the
histories (the warm-up) belongs to the training room.
"""

import dataclasses
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from catalign.errors import UserError
from catalign.files import whole_folder

BEGIN, END, PADDING = "<begin>", "<end>", "<padding>"
SPECIAL = (BEGIN, END, PADDING)  # their ids are 0, 1, 2
BYTES = 256
CONTEXT = 1_024
TITLES_READ = 20_000  # merging over whole titles takes seconds at this size; more titles add rare phrases only


@dataclasses.dataclass(frozen=True)
class Preset:
    """A size of the embedded model.

    Attributes:
        vocabulary: most tokens the tokenizer may have; a small catalogue gives fewer.
        width: of the hidden states (`hidden_size`); a multiple of `heads`.
        inner_width: of the feed-forward layers (`intermediate_size`).
        layers: number of layers.
        heads: attention heads per layer.
    """

    vocabulary: int
    width: int
    inner_width: int
    layers: int
    heads: int


PRESETS = {
    "tiny": Preset(vocabulary=2_048, width=128, inner_width=256, layers=2, heads=4),  # 0.6M parameters
    "small": Preset(vocabulary=8_192, width=256, inner_width=640, layers=3, heads=4),  # 4.4M
    "base": Preset(vocabulary=16_384, width=512, inner_width=1_408, layers=7, heads=8),  # 31M
}


def find_preset(name: str) -> Preset:
    """Return a preset by its name.

    Raises:
        UserError: no such preset.
    """
    if name not in PRESETS:
        raise UserError(f"no such preset: {name}", where="--preset", mend=f"use {', '.join(PRESETS)}")
    return PRESETS[name]


def build_tokenizer(
    titles: Sequence[str], vocabulary: int, context: int = CONTEXT, *, phrases: bool = False
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on titles; the same titles always give the same tokenizer.

    One space is put before every text and taken away by decoding, so that the first word of a title is the same token
    as that word inside a title, and any text comes back as it was. No token crosses a word boundary, unless `phrases`
    lets what titles have in common (" - PlayStation 4") become one token: titles are then half as long and training is
    faster, but new titles of known words are recognised less (`docs/lab-log.md`). The text of a special token in a
    title is text like any other.

    Args:
        titles: the catalogue's titles.
        vocabulary: most tokens, the 256 bytes and 3 special tokens among them; merges seen once are not made.
        context: the model's, noted in the tokenizer as `model_max_length`.
        phrases: let tokens cross word boundaries.

    Raises:
        UserError: no titles, or a vocabulary too small for the bytes.
    """
    if not titles:
        raise UserError("there are no titles to make a tokenizer from", mend="give a catalogue with items")
    if vocabulary < BYTES + len(SPECIAL):
        raise UserError(
            f"a vocabulary of {vocabulary} tokens cannot hold the {BYTES} bytes and {len(SPECIAL)} special tokens",
            where="the tokenizer",
            mend="ask for a larger one",
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not phrases)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    read = titles[:: -(-len(titles) // TITLES_READ)]  # evenly spaced
    tokenizer.train_from_iterator(read, trainer, length=len(read))
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PADDING,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
    )


def build_model(preset: str, vocabulary: int, seed: int, context: int = CONTEXT) -> LlamaForCausalLM:
    """Build a Llama of random weights in float32, input and output embeddings tied; the caller's random state is kept.

    Args:
        preset: a name in `PRESETS`.
        vocabulary: tokens of the tokenizer that goes with it (`len(tokenizer)`).
        seed: of the weights.
        context: the longest sequence in tokens.
    """
    size = find_preset(preset)
    begin, end, padding = range(len(SPECIAL))
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=size.width,
        intermediate_size=size.inner_width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=begin,
        eos_token_id=end,
        pad_token_id=padding,
        dtype=torch.float32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    # Sampling stays off in what is written: a sampled beam search repeats items.
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False, bos_token_id=begin, eos_token_id=end, pad_token_id=padding
    )
    return model


def check_title_lengths(tokenizer: PreTrainedTokenizerFast, titles: Sequence[str], context: int) -> None:
    """Raise UserError if a title, with a begin and an end token around it, is longer than the context."""
    encoded = tokenizer(list(titles), add_special_tokens=False, verbose=False)["input_ids"]
    lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(titles)) + 2
    longest = int(lengths.argmax())
    if lengths[longest] > context:
        start = textwrap.shorten(titles[longest], 60)
        raise UserError(
            f'the title "{start}" has {lengths[longest]} tokens, more than the model\'s context of {context}',
            where=f"item {longest}",
            mend="shorten the title or give the model a longer context",
        )


def save_embedded(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, *, overwrite: bool = False
) -> None:
    """Write model and tokenizer as a Hugging Face folder, whole or not at all."""
    with whole_folder(folder, overwrite=overwrite) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)


def init_embedded(
    titles: Sequence[str],
    preset: str,
    seed: int,
    folder: Path,
    *,
    context: int = CONTEXT,
    overwrite: bool = False,
) -> None:
    """Build tokenizer and model for a catalogue's titles and write them to `folder`.

    Raises:
        UserError: no such preset, no titles, a title longer than the context, or `folder` exists.
    """
    tokenizer = build_tokenizer(titles, find_preset(preset).vocabulary, context)
    check_title_lengths(tokenizer, titles, context)
    save_embedded(build_model(preset, len(tokenizer), seed, context), tokenizer, folder, overwrite=overwrite)
