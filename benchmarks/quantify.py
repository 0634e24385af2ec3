"""How right are corrected shares, when many labels are wrong, differently in each language? Beside them the uncorrected ones.

Run: `python benchmarks/quantify.py [--repeats 100]`. The confusion matrices are those of `false_alarms.py`, whose quiet traffic
is classified with the same errors.
"""

from __future__ import annotations

import argparse

import numpy as np
from false_alarms import LANGUAGES, confusion

from monitor.detection.quantify import adjusted_shares, em_shares

SHARES = (0.05, 0.15, 0.3, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    wrong = [1 - float(np.trace(confusion(lang))) / 3 for lang in LANGUAGES]
    print(f"labels wrong: {', '.join(f'{lang} {part:.0%}' for lang, part in zip(LANGUAGES, wrong, strict=True))}")
    print("mean absolute error of the negative share (its mean error)")
    print(f"{'documents':>10} {'adjusted count':>18} {'EM':>18} {'uncorrected':>18}")
    for documents in (300, 1_000, 3_000, 10_000):
        errors: dict[str, list[float]] = {"adjusted": [], "em": [], "raw": []}
        for lang in LANGUAGES:
            for share in SHARES:
                mix = np.array([share, (1 - share) * 0.6, (1 - share) * 0.4]) @ confusion(lang)
                counts = rng.multinomial(documents, mix, options.repeats).astype(np.float64)
                errors["adjusted"] += (adjusted_shares(counts, confusion(lang))[0][:, 0] - share).tolist()
                errors["em"] += (em_shares(counts, confusion(lang))[:, 0] - share).tolist()
                errors["raw"] += (counts[:, 0] / documents - share).tolist()
        cells = [f"{np.abs(found).mean():.3f} ({np.mean(found):+.3f})" for found in errors.values()]
        print(f"{documents:>10,} " + " ".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
