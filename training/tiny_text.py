"""Tokenizers and text encoders of the tiny pipelines: real classes, a few thousand random weights, no downloads."""

import json
import tempfile
from pathlib import Path
from typing import Any

BYTE_VOCABULARY = 3 + 256
CLIP_VOCABULARY = 2 * 256 + 2


def byte_tokenizer(max_length: int = 32, padding_side: str = "right", truncation_side: str = "right") -> Any:
    """A tokenizer of single bytes: every text has its own tokens and nothing is downloaded.

    Ids: 0 padding, 1 end of text, 2 unknown, 3… the 256 bytes. `max_length` is the default cut.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(("<pad>", "</s>", "<unk>", *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=max_length,
        padding_side=padding_side,
        truncation_side=truncation_side,
    )


def clip_tokenizer(max_length: int = 77) -> Any:
    """CLIP's own tokenizer class over the bytes alone: no merges, so one token a byte."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{token}</w>" for token in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary))
        Path(folder, "merges.txt").write_text("#version: 0.2\n")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=max_length)


def t5_encoder(vocabulary: int = BYTE_VOCABULARY) -> Any:
    from transformers import T5Config, T5EncoderModel

    sizes = {"d_model": 32, "d_ff": 37, "d_kv": 8, "num_heads": 4, "num_layers": 2}
    return T5EncoderModel(T5Config(vocab_size=vocabulary, pad_token_id=0, eos_token_id=1, **sizes)).eval()


def clip_text_encoder(hidden: int = 32) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=CLIP_VOCABULARY,
        hidden_size=hidden,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=32,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    return CLIPTextModel(config).eval()


def clip_vision_encoder() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=37,
            projection_dim=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=224,  # what the pipeline resizes to, whatever the feature extractor says
            patch_size=32,
        )
    ).eval()


def llama_encoder() -> Any:
    """HunyuanVideo's."""
    from transformers import LlamaConfig, LlamaModel

    return LlamaModel(
        LlamaConfig(
            vocab_size=BYTE_VOCABULARY,
            hidden_size=16,
            intermediate_size=37,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=1,
        )
    ).eval()


def qwen2_vl_encoder() -> Any:
    """EasyAnimate's."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    text = {
        "vocab_size": BYTE_VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1000000.0},
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 1,
    }
    eyes = {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 1}
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=eyes)).eval()


def chat_tokenizer() -> Any:
    """A byte tokenizer of which a conversation is its texts."""
    tokenizer = byte_tokenizer(256)
    tokenizer.chat_template = "{% for one in messages %}{{ one['content'][0]['text'] }}{% endfor %}"
    return tokenizer


def qwen_encoder() -> Any:
    """HunyuanVideo 1.5's."""
    from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

    return Qwen2_5_VLTextModel(
        Qwen2_5_VLTextConfig(
            vocab_size=BYTE_VOCABULARY,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=4,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1000000.0},
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=1,
        )
    ).eval()
