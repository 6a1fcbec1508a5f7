"""Write a tiny BERT in its published layout, trained a little here: `python make_bert.py FOLDER`.

Trained to tell texts of two machines apart (its first-token vectors, by cosine), so the weights are not random.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

SPINDLE = ["主轴 轴承 过热", "spindle bearing too hot", "bearing noise at the spindle", "主轴 异响 停机"]
PUMP = ["冷却 泵 漏水", "coolant pump leaks", "pump seal worn", "泵 压力 不足"]
STEPS = 30
make_model: Any = BertModel
make_fast: Any = PreTrainedTokenizerFast


def write_bert(folder: Path) -> None:
    """config, tokenizer, vocab.txt, model.safetensors, modules.json, 1_Pooling and 2_Normalize."""
    torch.manual_seed(0)
    fast = _make_tokenizer()
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        intermediate_size=128,
        max_position_embeddings=128,
        pad_token_id=fast.pad_token_id,
    )
    model = make_model(config, add_pooling_layer=False)
    _train(model, fast)
    model.eval().save_pretrained(folder)
    fast.save_pretrained(folder)
    vocabulary = sorted(fast.get_vocab().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in vocabulary), encoding="utf-8")
    for name in ("1_Pooling", "2_Normalize"):
        (folder / name).mkdir()
    pooling = {"word_embedding_dimension": 64, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    parts = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(parts))


def _make_tokenizer() -> Any:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(SPINDLE + PUMP, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
    pair = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=pair)
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return make_fast(tokenizer_object=tokenizer, mask_token="[MASK]", **names)


def _train(model: Any, fast: Any) -> None:
    batch = fast(SPINDLE + PUMP, padding=True, return_tensors="pt")
    mask, optimizer = batch["attention_mask"].unsqueeze(-1), torch.optim.AdamW(model.parameters(), lr=1e-3)
    wanted = torch.tensor([[float(one == two) for two in [0] * 4 + [1] * 4] for one in [0] * 4 + [1] * 4])
    for _ in range(STEPS):
        states = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        vectors = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
        loss = ((vectors @ vectors.T - wanted) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    write_bert(Path(sys.argv[1]))
