"""Rows of every kind of file become examples of one label scheme, no text is on both sides of a split, and mistakes are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from training.data.clean import essence
from training.data.duplicates import near_duplicates
from training.data.examples import Dataset, Example
from training.data.mapping import SHIPPED, LabelMapping, load_mapping, map_rows
from training.data.readers import read_rows
from training.errors import TrainingError
from training.recipe import Recipe
from training.stages.data import digest, prepare

SENTIMENT = ("negative", "neutral", "positive")
ROWS = [{"lang": "en", "stars": "5", "text": "so, \"good\""}, {"lang": "de", "stars": "1", "text": "schlecht"}]  # fmt: skip
STARS = LabelMapping(
    head="sentiment", language="lang", label="stars", labels={"1": "negative", "3": "neutral", "5": "positive"}
)


def write(path: Path, header: str, *lines: str) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet
    from datasets import Dataset as HubDataset

    write(tmp_path / "a.tsv", "lang\tstars\ttext", 'en\t5\tso, "good"', "de\t1\tschlecht")
    write(tmp_path / "a.csv", "lang,stars,text", 'en,5,"so, ""good"""', "de,1,schlecht")
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row | {"stars": int(row["stars"])}) for row in ROWS))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    HubDataset.from_list(ROWS).save_to_disk(str(tmp_path / "folder"))
    for name in ("a.tsv", "a.csv", "a.jsonl", "a.parquet", "folder"):
        assert [dict(row) for _, row in read_rows(tmp_path / name)] == ROWS, name
    assert [number for number, _ in read_rows(tmp_path / "a.tsv")] == [2, 3]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tsv", "lang\ttext\nen\tone\ttwo\n", "a.tsv:2: has another number of cells"),
        ("a.jsonl", '{"text": "x"}\nnonsense\n', "a.jsonl:2: is not JSON"),
        ("a.txt", "hello\n", r"\.txt is no known kind of data"),
        ("a.parquet", "nonsense", "cannot be read"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(TrainingError, match=said):
        list(read_rows(tmp_path / name))


def test_labels_are_mapped_and_combinations_that_disagree_are_left_out() -> None:
    mapping = load_mapping("xed", SHIPPED)
    cells = {"1": 0, "0": 1, "5": 2, "2,5": 2, "1,3": 0, "5,4": None, "2": None}
    rows = [(n, {"language": "fi", "emotions": cell, "text": f"text {cell}"}) for n, cell in enumerate(cells)]
    found = map_rows(rows, mapping, SENTIMENT, "xed", "xed.tsv")
    assert {example.text.split()[1]: example.label for example in found.examples} == {
        cell: label for cell, label in cells.items() if label is not None
    }
    assert found.dropped == {"label left out by the mapping": 2}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"stars": ""}, "row 7: the label is missing"),
        ({"stars": "4"}, "row 7: the label '4' is not in the mapping"),
        ({"lang": " "}, "row 7: the language is empty"),
        ({"text": "3.5"}, "the text column 'text' holds numbers"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(row: dict[str, str], said: str) -> None:
    rows = [(7, ROWS[0] | row)]
    with pytest.raises(TrainingError, match=said):
        map_rows(rows, STARS, SENTIMENT, "mine", "mine.tsv")


def test_a_missing_column_is_told_with_those_there_are() -> None:
    with pytest.raises(TrainingError, match=r"has no column stars \(it has rating, text\)"):
        map_rows([(2, {"rating": "5", "text": "x"})], STARS.model_copy(update={"language": "", "lang": "en"}), SENTIMENT, "m", "m.tsv")  # fmt: skip


def test_a_mapping_to_an_unknown_label_is_refused() -> None:
    with pytest.raises(TrainingError, match="the mapping leads to positive"):
        map_rows([(2, ROWS[0])], STARS, ("negative", "neutral"), "mine", "mine.tsv")


def test_all_shipped_mappings_can_be_read() -> None:
    for path in SHIPPED.glob("*.toml"):
        assert load_mapping(path.stem, SHIPPED).labels


long_texts = st.lists(st.sampled_from(["the", "a", "bank", "airline", "late", "again", "money", "lost", "why", "queue", "strike", "sun"]), min_size=8, max_size=20).map(" ".join)  # fmt: skip


@given(texts=st.lists(long_texts, max_size=8), copies=st.data())
def test_a_text_is_a_repeat_of_an_earlier_one_only(texts: list[str], copies: st.DataObject) -> None:
    texts = [*texts, *(copies.draw(st.lists(st.sampled_from(texts), max_size=4)) if texts else [])]
    found = near_duplicates(texts, ["en"] * len(texts), 0.8)
    for place, first in enumerate(found):
        assert first <= place
        assert found[first] == first
        assert found[place] <= texts.index(texts[place])


def test_near_copies_are_found_in_one_language_only() -> None:
    text = "the airline cancelled my flight again and nobody answers the telephone at the airport this morning"
    texts = [
        text,
        f"RT @jo: {text.upper()}!!! https://t.co/abc",
        text.replace("morning", "evening"),
        text,
        "all is well",
    ]
    essences = [essence(one) for one in texts]
    assert near_duplicates(essences, ["en", "en", "en", "de", "en"], 0.8) == [0, 0, 0, 3, 4]


def recipe(folder: Path, *sources: str, **data: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "r",
            "heads": {"sentiment": {"labels": SENTIMENT}},
            "data": {
                "sources": [json.loads(source) for source in sources],
                **data,
            },
            "stages": [{"type": "finetune"}],
        }
    )


def source(name: str, split: str = "train", **more: object) -> str:
    return json.dumps({"name": name, "path": f"{name}.tsv", "mapping": "m.toml", "split": split, **more})


def sources(folder: Path, train: list[str], check: list[str]) -> Path:
    (folder / "m.toml").write_text(
        'head = "sentiment"\nlanguage = "language"\nlabels = { 0 = "negative", 1 = "neutral", 2 = "positive" }\n'
    )
    for name, lines in (("train", train), ("check", check)):
        write(folder / f"{name}.tsv", "language\tlabel\ttext", *lines)
    return folder


def test_a_leak_is_an_error_that_names_the_rows_or_is_dropped(tmp_path: Path) -> None:
    sources(tmp_path, ["en\t0\tsuch a bad day", "en\t2\tA good day!"], ["en\t2\ta good day", "en\t1\ta day"])
    with pytest.raises(TrainingError, match="train row 3 is check row 2"):
        prepare(recipe(tmp_path, source("train"), source("check", "validation")), tmp_path, tmp_path)
    data, _, dropped = prepare(
        recipe(tmp_path, source("train"), source("check", "validation"), leaks="drop"), tmp_path, tmp_path
    )
    assert [example.text for example in data.train] == ["such a bad day"]
    assert dropped == {"train texts that are in validation or test": 1}


def test_a_group_on_both_sides_is_a_leak(tmp_path: Path) -> None:
    sources(tmp_path, [], [])
    with (tmp_path / "m.toml").open("a") as file:
        file.write('group = "id"\n')
    write(tmp_path / "train.tsv", "language\tid\tlabel\ttext", "en\t7\t0\tbad", "en\t8\t2\tgood")
    write(tmp_path / "check.tsv", "language\tid\tlabel\ttext", "de\t7\t0\tschlecht")
    both = [source("s", path="train.tsv"), source("s", "validation", path="check.tsv")]
    with pytest.raises(TrainingError, match="s row 2 is s row 2"):
        prepare(recipe(tmp_path, *both), tmp_path, tmp_path)


def test_a_split_is_even_over_languages_and_labels_and_the_same_each_time(tmp_path: Path) -> None:
    lines = [
        f"{lang}\t{label}\ttext {lang} {label} number {n}"
        for lang in ("en", "de")
        for label in (0, 1, 2)
        for n in range(20)
    ]
    sources(tmp_path, [], [])
    write(
        tmp_path / "train.tsv",
        "language\tlabel\ttext",
        *[line.replace("number", "x" * n) for n, line in enumerate(lines)],
    )
    wanted = recipe(tmp_path, source("train", validation=0.1), similarity=1.0)
    data, _, _ = prepare(wanted, tmp_path, tmp_path)
    counts = {(e.lang, e.label): 0 for e in data.validation}
    for example in data.validation:
        counts[example.lang, example.label] += 1
    assert set(counts.values()) == {2}
    assert len(counts) == 6
    assert len(data.train) == 108
    assert prepare(wanted, tmp_path, tmp_path)[0] == data
    assert prepare(wanted.model_copy(update={"seed": 1}), tmp_path, tmp_path)[0].validation != data.validation


def test_a_language_left_out_is_checked_and_never_trained_on(tmp_path: Path) -> None:
    sources(tmp_path, ["en\t0\tbad", "de\t2\tgut", "en\t2\tgood"], ["en\t1\tso so"])
    wanted = recipe(tmp_path, source("train"), source("check", "validation"), leave_out={"sentiment": ["de"]})
    data, _, _ = prepare(wanted, tmp_path, tmp_path)
    assert {example.lang for example in data.train} == {"en"}
    assert [example.text for example in data.validation if example.lang == "de"] == ["gut"]


def test_the_first_texts_of_each_language_can_be_skipped(tmp_path: Path) -> None:
    sources(tmp_path, ["en\t0\tbad", "de\t2\tgut", "en\t2\tgood", "de\t0\tschlecht", "fr\t0\tmal"], ["en\t1\tso so"])
    data, _, _ = prepare(recipe(tmp_path, source("train", skip=1), source("check", "validation")), tmp_path, tmp_path)
    assert {example.text for example in data.train} == {"good", "schlecht"}
    with pytest.raises(TrainingError, match="no language has more than 2 texts"):
        prepare(recipe(tmp_path, source("train", skip=2), source("check", "validation")), tmp_path, tmp_path)


def test_a_head_without_texts_to_check_is_told(tmp_path: Path) -> None:
    sources(tmp_path, ["en\t0\tbad"], [])
    with pytest.raises(TrainingError, match=r"the head 'sentiment' has no validation texts .*validation = 0\.1"):
        prepare(recipe(tmp_path, source("train")), tmp_path, tmp_path)


def test_the_digest_tells_other_contents(tmp_path: Path) -> None:
    sources(tmp_path, ["en\t0\tbad"], [])
    wanted = recipe(tmp_path, source("train"))
    before = digest(wanted, tmp_path)
    write(tmp_path / "train.tsv", "language\tlabel\ttext", "en\t1\tbad")
    assert digest(wanted, tmp_path) != before


def test_examples_come_back_from_their_files(tmp_path: Path) -> None:
    data = Dataset([Example("sentiment", 1, "th", 'ก\u2028\x85 "x"', "s", 2, "g")], [], [])
    data.save(tmp_path)
    assert Dataset.load(tmp_path) == data
