"""The smallest classifiers of transformers, with weights that make their answers known."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetForImageClassification,
    ViTImageProcessorPil,
)

SIDE, WINDOW = 32, 8
_VOCABULARY = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "vile": 4}


def save_frame_classifier(folder: Path, labels: tuple[str, ...] = ("Normal", "Red")) -> Path:
    """A ResNet that finds the second label in a picture that is red, and the first in any other."""
    config = ResNetConfig(
        embedding_size=3, hidden_sizes=[3], depths=[1], layer_type="basic", num_labels=2, **_labels(labels)
    )
    model = ResNetForImageClassification(config).eval()
    with torch.no_grad():
        _zero(model)
        embedder = model.resnet.embedder.embedder
        embedder.convolution.weight[0, :, 3, 3] = torch.tensor([1.0, -1.0, -1.0])  # 3 for red, from -1 to 1 for others
        embedder.normalization.weight.fill_(1.0)
        embedder.normalization.bias[0] = -1.0
        model.classifier[1].weight[1, 0] = 10.0
        model.classifier[1].bias[1] = -10.0
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def save_text_classifier(folder: Path, labels: tuple[str, ...] = ("safe", "Hate")) -> Path:
    """A BERT that reads eight tokens and finds the second label where one of them is 'vile'."""
    config = BertConfig(
        vocab_size=len(_VOCABULARY),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=WINDOW,
        num_labels=2,
        **_labels(labels),
    )
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        _zero(model)
        embeddings, layer = model.bert.embeddings, model.bert.encoder.layer[0]
        embeddings.word_embeddings.weight[:, 5] = 10.0
        embeddings.word_embeddings.weight[4] = torch.eye(8)[0] * 10.0
        for norm in (embeddings.LayerNorm, layer.attention.output.LayerNorm, layer.output.LayerNorm):
            norm.weight.fill_(1.0)
        embeddings.LayerNorm.bias[0] = 7**-0.5  # now 0 for every token but 'vile'
        layer.attention.self.value.weight[2, 0] = 100.0
        layer.attention.output.dense.weight.copy_(torch.eye(8))
        model.bert.pooler.dense.weight.copy_(torch.eye(8))
        model.classifier.weight[1, 2] = 10.0
    model.save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel(_VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=WINDOW,
    ).save_pretrained(folder)
    return folder


def _labels(labels: tuple[str, ...]) -> dict[str, dict[object, object]]:
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def _zero(model: torch.nn.Module) -> None:
    for parameter in model.parameters():
        parameter.zero_()
