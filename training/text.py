"""The text side of the embedded model: a word-level tokenizer over a fixed vocabulary, and a small T5 encoder."""

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from training.words import vocabulary

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"


def build_tokenizer(known: Sequence[str] | None = None) -> PreTrainedTokenizerFast:
    """Lower-cased words, those of the first recipe when not said; punctuation is dropped; every unknown word becomes
    `<unk>`; each text ends in `</s>`."""
    words = {word: index for index, word in enumerate([PAD, END, UNKNOWN, *(vocabulary() if known is None else known)])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(behavior="removed")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, words[END])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, model_max_length=512
    )


def build_text_encoder(vocabulary_size: int, seed: int, width: int = 96) -> T5EncoderModel:
    """Two layers, four heads; trained jointly with the denoiser."""
    torch.manual_seed(seed)
    return T5EncoderModel(
        T5Config(
            vocab_size=vocabulary_size,
            d_model=width,
            d_kv=width // 4,
            d_ff=2 * width,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    )
