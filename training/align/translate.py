"""Translators behind one interface: Debian's `apertium`, any Hugging Face translation model, or files translated beforehand."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from training.corpus import language_code
from training.errors import TrainingError

_APERTIUM_TIMEOUT_S = 600.0
"""For one call with at most `BATCH` texts, which takes seconds: beyond this it hangs."""
BATCH = 256
"""Texts in a call, and between two commits of the cache: what a crash may cost."""
_NLLB_SCRIPTS = {
    "ar": "arb_Arab", "de": "deu_Latn", "en": "eng_Latn", "es": "spa_Latn", "fa": "pes_Arab", "fr": "fra_Latn",
    "hi": "hin_Deva", "it": "ita_Latn", "ja": "jpn_Jpan", "ko": "kor_Hang", "no": "nob_Latn", "pt": "por_Latn",
    "ru": "rus_Cyrl", "sw": "swh_Latn", "th": "tha_Thai", "zh": "zho_Hans",
}  # fmt: skip
"""NLLB's codes where the first with the language's three letters is not the one that is meant."""


class Translator(Protocol):
    """Texts of one language into another."""

    name: str
    """Part of the cache's key: another name, other translations."""

    def __call__(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """Translations in order; an empty one where there is none.

        Args:
            texts: Any.
            source: Their language, as the daemon codes it.
            target: The language to translate into.

        Raises:
            TrainingError: It does not know the pair, or failed.
        """

    def knows(self, source: str, target: str) -> bool:
        """Whether it can translate this pair."""


class Apertium:
    """The command `apertium`, a rule-based translator with free data for some 50 pairs (Forcada et al. 2011).

    Raises:
        TrainingError: The command is not installed.
    """

    def __init__(self, command: str = "apertium") -> None:
        found = shutil.which(command)
        if found is None:
            raise TrainingError("is not installed", where=command, hint="apt-get install apertium apertium-eng-spa")
        self._command = found
        told = self._run(["-l"], "")
        self._modes = {name.strip() for name in told.splitlines() if name.strip()}
        self.name = "apertium"

    def knows(self, source: str, target: str) -> bool:
        """Whether the data package of the pair is installed."""
        return self._mode(source, target) is not None

    def __call__(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """As `Translator` says; unknown words stay as they are."""
        mode = self._mode(source, target)
        if mode is None:
            raise TrainingError(
                f"knows no pair {source}-{target}",
                where="apertium",
                hint=f"apt-cache search apertium; it has {', '.join(sorted(self._modes)) or 'none'}",
            )
        # One text a line; the format keeps lines apart, where plain text would run them into one sentence.
        lines = [" ".join(text.split()) for text in texts]
        found = self._run(["-u", "-f", "line", mode], "".join(f"{line}\n" for line in lines)).split("\n")
        if found and not found[-1]:
            found.pop()
        if len(found) != len(lines):
            raise TrainingError(f"gave {len(found)} lines for {len(lines)}", where=f"apertium {mode}")
        return [" ".join(line.split()) for line in found]

    def _mode(self, source: str, target: str) -> str | None:
        names = [f"{a}-{b}" for a in _codes(source) for b in _codes(target)]
        return next((name for name in names if name in self._modes), None)

    def _run(self, arguments: Sequence[str], text: str) -> str:
        try:
            ended = subprocess.run(
                [self._command, *arguments], input=text, capture_output=True, text=True, timeout=_APERTIUM_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise TrainingError("does not answer", where=self._command) from None
        if ended.returncode:
            last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
            raise TrainingError(f"failed: {last}", where=" ".join([self._command, *arguments]))
        return ended.stdout


def _codes(lang: str) -> tuple[str, ...]:
    """A language's codes of three and of two letters: Apertium's packages use both."""
    import langcodes

    plain = lang.partition("-")[0]
    three = {"no": "nob", "ms": "zlm", "sr": "hbs", "hr": "hbs"}.get(plain) or langcodes.Language.get(plain).to_alpha3()
    return three, plain


class HuggingFace:
    """A MarianMT, NLLB or M2M100 model (or another with the same interface) by hub name or folder.

    Args:
        model: Name or folder; a name with ``{source}`` and ``{target}`` is one model per pair, as Marian's are:
            ``Helsinki-NLP/opus-mt-{source}-{target}``.
        device: Where it runs.
        beams: Of the search.
    """

    def __init__(self, model: str, device: str = "cpu", beams: int = 4) -> None:
        self._model, self._device, self._beams = model, device, beams
        self._loaded: dict[str, tuple[Any, Any]] = {}
        self.name = f"{model} beams={beams}"

    def knows(self, source: str, target: str) -> bool:
        """Whether the model is to be had and has both languages."""
        try:
            tokenizer, model = self._load(source, target)
            _target_token(tokenizer, model, source, target)
        except TrainingError:
            return False
        return True

    def __call__(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """As `Translator` says."""
        import torch

        tokenizer, model = self._load(source, target)
        first = _target_token(tokenizer, model, source, target)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        found = [""] * len(texts)
        for start in range(0, len(order), 16):
            places = order[start : start + 16]
            batch = tokenizer(
                [texts[i] for i in places], return_tensors="pt", padding=True, truncation=True, max_length=256
            )
            # Twice the source's length: a model that has lost itself repeats until it is stopped.
            limit = 2 * batch["input_ids"].shape[1] + 10
            with torch.inference_mode():
                made = model.generate(
                    **batch.to(self._device),
                    num_beams=self._beams,
                    max_new_tokens=limit,
                    **({} if first is None else {"forced_bos_token_id": first}),
                )
            for i, text in zip(places, tokenizer.batch_decode(made, skip_special_tokens=True), strict=True):
                found[i] = text.strip()
        return found

    def _load(self, source: str, target: str) -> tuple[Any, Any]:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        name = self._model.format(source=source, target=target)
        if name not in self._loaded:
            try:
                tokenizer = AutoTokenizer.from_pretrained(name)
                model = AutoModelForSeq2SeqLM.from_pretrained(name).to(self._device).eval()
            except (OSError, ValueError, ImportError) as error:
                raise TrainingError(
                    f"cannot be loaded: {error}".splitlines()[0], where=name, hint="a folder, or a name on the hub"
                ) from None
            self._loaded = {name: (tokenizer, model)}  # one at a time: they are large
        return self._loaded[name]


def _target_token(tokenizer: Any, model: Any, source: str, target: str) -> int | None:
    """The token that makes a many-to-many model write the target language; sets the source language on the tokenizer.

    Raises:
        TrainingError: The model lacks one of the two.
    """
    kind = model.config.model_type
    if kind == "marian":
        return None
    codes = {}
    for lang in (source, target):
        plain = lang.partition("-")[0]
        known: Mapping[str, int] = tokenizer.get_vocab()
        if hasattr(tokenizer, "lang_code_to_token"):  # M2M100
            code = plain if plain in tokenizer.lang_code_to_token else ""
        else:
            three = _codes(plain)[0]
            listed = sorted(piece for piece in known if piece.startswith(f"{three}_") and len(piece) == 8)
            code = _NLLB_SCRIPTS.get(plain) or (listed[0] if listed else "")
            code = code if code in known else ""
        if not code:
            raise TrainingError(f"knows no {lang}", where=str(model.config.name_or_path))
        codes[lang] = code
    tokenizer.src_lang = codes[source]
    if hasattr(tokenizer, "lang_code_to_token"):
        return int(tokenizer.get_lang_id(codes[target]))
    return int(tokenizer.convert_tokens_to_ids(codes[target]))


class Ready:
    """Translations that were made elsewhere.

    Args:
        path: TSV with one column a language, each row one text in all of them.

    Raises:
        TrainingError: It is not there, or is no such table.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        except OSError as error:
            raise TrainingError(f"cannot be read: {error.strerror}", where=str(path)) from None
        self._langs = [language_code(code) for code in rows[0]] if rows else []
        wrong = next((n for n, row in enumerate(rows, 1) if len(row) != len(self._langs)), None)
        if len(self._langs) < 2 or wrong:
            what = f"line {wrong} has another number of cells" if wrong else "has fewer than two columns"
            raise TrainingError(what, where=str(path), hint="one column a language, its code in the header")
        self._rows = rows[1:]
        self._path = path
        self.name = f"ready {path.resolve()} {path.stat().st_mtime_ns}"

    def knows(self, source: str, target: str) -> bool:
        """Whether the table has both columns."""
        return source in self._langs and target in self._langs

    def __call__(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """As `Translator` says; a text that is not in the table has no translation."""
        if not self.knows(source, target):
            raise TrainingError(f"has no columns {source} and {target}", where=str(self._path))
        a, b = self._langs.index(source), self._langs.index(target)
        known = {row[a].strip(): row[b].strip() for row in self._rows}
        return [known.get(text.strip(), "") for text in texts]


def make_translator(name: str, resolve: Callable[[str], Path], device: str = "cpu") -> Translator:
    """A translator by what a recipe calls it.

    Args:
        name: ``apertium``, ``file:PATH`` for translations made elsewhere, or the name or folder of a Hugging Face model.
        resolve: A path of the recipe to one of this machine.
        device: For a model.

    Raises:
        TrainingError: It cannot be had.
    """
    if name == "apertium":
        return Apertium()
    if name.startswith("file:"):
        return Ready(resolve(name.removeprefix("file:")))
    folder = resolve(name) if "{" not in name else None
    return HuggingFace(str(folder) if folder is not None and folder.is_dir() else name, device)


def in_batches(texts: Sequence[str], size: int = BATCH) -> Iterator[Sequence[str]]:
    """Texts in runs of at most `size`."""
    for start in range(0, len(texts), size):
        yield texts[start : start + size]
