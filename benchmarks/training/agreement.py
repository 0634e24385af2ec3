"""Does a bundle say the same of the same sentence in every language? Its sentiment of parallel sentences against that in English.

Run: `python benchmarks/training/agreement.py bundles/default $BABELWATCH_DATA/sib200/dev.tsv`; the file as for the stage `align`. The languages
take no labels: a share of negative posts can only mean the same in all of them if their agreement is high and they call about as many neutral.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from monitor.oneshot import classify_texts
from training.align.parallel import read_groups

PIVOT = "en"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("parallel", type=Path)
    options = parser.parse_args()
    cells = [(n, lang, text) for n, group in enumerate(read_groups(options.parallel)) for lang, text in group.items()]
    found = classify_texts([text for _, _, text in cells], options.bundle)
    said = {(n, lang): one.sentiment for (n, lang, _), one in zip(cells, found, strict=True)}
    shares = []
    for lang in sorted({lang for _, lang in said} - {PIVOT}):
        pairs = [(here, said[n, PIVOT]) for (n, its), here in said.items() if its == lang and (n, PIVOT) in said]
        shares.append(
            (np.mean([here == there for here, there in pairs]), np.mean([here == "neutral" for here, _ in pairs]))
        )
        print(f"{lang:8} as in {PIVOT} {100 * shares[-1][0]:.0f} %, neutral {100 * shares[-1][1]:.0f} %")
    agree, neutral = np.array(shares).T
    print(
        f"mean     as in {PIVOT} {100 * agree.mean():.0f} % ({100 * agree.min():.0f} to {100 * agree.max():.0f}), neutral {100 * neutral.min():.0f} to {100 * neutral.max():.0f} %"
    )


if __name__ == "__main__":
    main()
