"""Made-up labelled texts, a small random encoder, and a recipe over both."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

from tests.unit.export import tiny

TELLING = {"negative": "bado", "neutral": "fuke", "positive": "mila"}
"""The syllables that make a text what it is."""
TOPICS = {"culture": "gopu", "sport": "tesi"}
LANGS = ("de", "en", "fr")


def write_base(folder: Path) -> Path:
    """Two random layers and a tokenizer of syllables, as a Hugging Face folder."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny.tokenizer()
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size() + 7, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64, initializer_range=0.2, pad_token_id=1,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_data(folder: Path, rows: int = 200, seed: int = 0) -> Path:
    """`posts.tsv` (language, label, text; labels 0 to 2) and `news.tsv` (lang, group, kind, body), easy to learn."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)

    def text(telling: str) -> str:
        words = ["".join(rng.choices(tiny.SYLLABLES, k=rng.randrange(1, 4))) for _ in range(rng.randrange(2, 9))]
        return " ".join(rng.sample([*words, *[telling] * 3], len(words) + 3))

    posts = ["language\tlabel\ttext"]
    for n in range(rows):
        label = rng.randrange(3)
        posts.append(f"{LANGS[n % 3]}\t{label}\t{text(list(TELLING.values())[label])}")
    news = ["lang\tgroup\tkind\tbody"]
    for n in range(rows // 2):
        topic = rng.choice(list(TOPICS))
        news.append(f"{LANGS[n % 3]}\t{n // 3}\t{topic}\t{text(TOPICS[topic])}")
    (folder / "posts.tsv").write_text("\n".join(posts) + "\n")
    (folder / "news.tsv").write_text("\n".join(news) + "\n")
    (folder / "posts.toml").write_text(
        'head = "sentiment"\nlanguage = "language"\nlabels = { 0 = "negative", 1 = "neutral", 2 = "positive" }\n'
    )
    (folder / "news.toml").write_text(
        'head = "topic"\nlanguage = "lang"\nlabel = "kind"\ntext = "body"\ngroup = "group"\n'
        'labels = { culture = "culture", sport = "sport" }\n'
    )
    return folder


RECIPE = """
name = "tiny"

[encoder]
model = "base"
text_prefix = "bada: "
max_length = 24

[heads.sentiment]
labels = ["negative", "neutral", "positive"]

[heads.topic]
labels = ["culture", "sport"]

[[data.sources]]
name = "posts"
path = "posts.tsv"
mapping = "posts.toml"
validation = 0.3

[[data.sources]]
name = "news"
path = "news.tsv"
mapping = "news.toml"
validation = 0.3

[vocabulary]
pieces = 700
word_lists = false

[[stages]]
type = "finetune"
epochs = 12
batch_tokens = 600
learning_rate = 5e-3
head_learning_rate = 2e-2
freeze_embeddings = false
dropout = 0.05
evaluations = 2
average = 0.2

[[stages]]
type = "transfer"
sources = ["posts"]
epochs = 2
replay = 0.2
batch_tokens = 600
unfreeze_every = 0.4
evaluations = 1

[calibrate]
min_texts = 12
"""


def write_all(folder: Path) -> Path:
    """Base, data and recipe in one folder; returns the recipe's file."""
    write_base(folder / "base")
    write_data(folder)
    (folder / "recipe.toml").write_text(RECIPE)
    return folder / "recipe.toml"
