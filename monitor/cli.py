"""The commands: parse, call, print. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from monitor.errors import BabelwatchError

app = typer.Typer(
    name="babelwatch",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Watch what people feel about what you care about, in every language, and be told when it turns.",
)
config_app = typer.Typer(no_args_is_help=True, help="The configuration file.")
bundle_app = typer.Typer(no_args_is_help=True, help="Model bundles.")
notify_app = typer.Typer(no_args_is_help=True, help="Sinks: where alerts go.")
deadletter_app = typer.Typer(no_args_is_help=True, help="Records that could not be used.")
app.add_typer(config_app, name="config")
app.add_typer(bundle_app, name="bundle")
app.add_typer(notify_app, name="notify")
app.add_typer(deadletter_app, name="deadletter")

out = Console()
err = Console(stderr=True)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The TOML file; without it, defaults and environment.", show_default=False),
]


@contextmanager
def _told_plainly() -> Iterator[None]:
    """A user's mistake becomes its message and exit code 2."""
    try:
        yield
    except _mistakes() as error:
        err.print(f"[bold red]error[/] {_escaped(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    except ModuleNotFoundError as error:
        err.print(f"[bold red]error[/] {error.name} is not installed (pip install 'babelwatch\\[training]')")
        raise typer.Exit(2) from None


def _mistakes() -> tuple[type[Exception], ...]:
    """The errors that are a user's to mend; training has one of its own, and only a command that loaded it can meet it."""
    training = sys.modules.get("training.errors")
    return (BabelwatchError,) if training is None else (BabelwatchError, training.TrainingError)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


@app.command()
def run(
    config: ConfigOption = None,
    role: Annotated[str, typer.Option(help="all, classify, detect or notify.")] = "all",
) -> None:
    """Run the daemon until it is told to stop."""
    with _told_plainly():
        from monitor.app import App, Role
        from monitor.config import load_config
        from monitor.log import setup

        try:
            chosen = Role(role)
        except ValueError:
            raise BabelwatchError(
                f"{role!r} is no role", where="--role", hint=f"one of {', '.join(r.value for r in Role)}"
            ) from None
        settings = load_config(config)
        setup(settings.log)

        async def work() -> int:
            app = App(settings, chosen)
            code = await app.run()
            if app.abandoned:
                # What a thread still computes is thrown away and read again; Python would wait for it, perhaps for minutes.
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
            return code

        raise typer.Exit(asyncio.run(work()))


@app.command()
def demo(
    stay: Annotated[bool, typer.Option("--stay", help="Keep running afterwards, status page and metrics up.")] = False,
    seconds: Annotated[float, typer.Option(help="How long the sample day should take to replay.", min=5)] = 60.0,
    port: Annotated[int, typer.Option(help="Port of the status page; 0 takes a free one.")] = 8088,
    picture: Annotated[Path | None, typer.Option(help="Save the last screen as an SVG picture.")] = None,
) -> None:
    """Replay a sample day in many languages through the real model over an embedded broker, and watch."""
    with _told_plainly():
        from monitor.demo import run_demo

        raise typer.Exit(asyncio.run(run_demo(out, stay=stay, seconds=seconds, port=port, picture=picture)))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="JSON Lines, plain, .gz or .zst.")],
    topic: Annotated[str | None, typer.Option(help="Where to; by default the configured documents topic.")] = None,
    speed: Annotated[float, typer.Option(help="Event time against the clock; 0: as fast as possible.", min=0)] = 0.0,
    config: ConfigOption = None,
) -> None:
    """Send a file of documents into Kafka, at the pace of their own time."""
    with _told_plainly():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from monitor.config import load_config
        from monitor.replay import count_lines
        from monitor.replay import replay as send

        settings = load_config(config)
        if settings.kafka.embedded:
            raise BabelwatchError(
                "no Kafka is named", where="kafka.bootstrap_servers", hint="the embedded broker lives inside `run` only"
            )
        total = count_lines(file)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=err) as progress:
            task = progress.add_task(str(file.name), total=total)
            sent = asyncio.run(
                send(
                    file,
                    kafka=settings.kafka,
                    topic=topic or settings.topics.documents,
                    documents=settings.documents,
                    speed=speed,
                    on_progress=lambda done, _: progress.update(task, completed=done),
                )
            )
        out.print(f"{sent} records sent to {topic or settings.topics.documents}")


@app.command()
def classify(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without any, lines of standard input.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Tell the language, sentiment and topic of texts."""
    with _told_plainly():
        from monitor.oneshot import classify_texts, print_table

        lines = texts or [line.rstrip("\n") for line in sys.stdin if line.strip()]
        results = classify_texts(lines, bundle)
        if as_json:
            import msgspec

            for result in results:
                sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
        else:
            print_table(out, results)


@app.command()
def validate(config: Annotated[Path, typer.Argument(help="The configuration file.")]) -> None:
    """Check a configuration with its watchlist and bundle; tells all errors at once."""
    with _told_plainly():
        from monitor.config import load_config
        from monitor.inference.bundle import Bundle
        from monitor.sinks import problems as problems_of_sinks
        from monitor.watchlist import load_watchlist

        settings = load_config(config)
        problems = problems_of_sinks(settings.sinks)
        for check in (lambda: load_watchlist(settings.watchlist), lambda: Bundle.load(settings.inference.bundle)):
            try:
                check()
            except BabelwatchError as error:
                problems.append(str(error))
        if problems:
            raise BabelwatchError("\n".join(problems))
        out.print(f"[green]{config} is good[/]", highlight=False)


@config_app.command("example")
def config_example() -> None:
    """Print every option with its default and meaning, as a valid TOML file."""
    from monitor.config import example

    sys.stdout.write(example())


@app.command()
def schema(
    name: Annotated[
        str | None, typer.Argument(help="document, opinion, alert, deadletter ...; all when left out.")
    ] = None,
) -> None:
    """Print the JSON Schema of the records on the topics."""
    with _told_plainly():
        import json

        from monitor.schemas import schemas

        known = schemas()
        if name is not None and name not in known:
            raise BabelwatchError(f"no record is called {name!r}", hint=f"one of {', '.join(known)}")
        chosen: Any = known if name is None else known[name]
        sys.stdout.write(json.dumps(chosen, indent=2) + "\n")


@bundle_app.command("inspect")
def bundle_inspect(path: Annotated[Path, typer.Argument(help="The bundle's folder.")]) -> None:
    """Show what is in a bundle: heads, languages, quality, provenance."""
    with _told_plainly():
        from monitor.inference.bundle import read_manifest
        from monitor.oneshot import print_manifest

        print_manifest(out, read_manifest(path))


@bundle_app.command("verify")
def bundle_verify(path: Annotated[Path, typer.Argument(help="The bundle's folder.")]) -> None:
    """Check every file of a bundle against its manifest."""
    with _told_plainly():
        from monitor.inference.bundle import Bundle

        bundle = Bundle.load(path)
        out.print(
            f"[green]{path} is whole[/]: version {bundle.version}, {len(bundle.manifest.files)} files", highlight=False
        )


@notify_app.command("test")
def notify_test(
    sink: Annotated[str, typer.Argument(help="Name of the sink in the configuration.")],
    config: ConfigOption = None,
    state: Annotated[str, typer.Option(help="firing, escalated or resolved.")] = "firing",
) -> None:
    """Send a marked sample to one sink, at once, and say what happened: exit code 0 when it took it, 1 when not."""
    with _told_plainly():
        from monitor.config import load_config
        from monitor.sinks.trial import send_sample

        told = asyncio.run(send_sample(load_config(config).sinks, sink, state))
        for line in told.lines:
            out.print(_escaped(line), highlight=False, soft_wrap=True)
        raise typer.Exit(0 if told.delivered else 1)


@deadletter_app.command("replay")
def deadletter_replay(
    reason: Annotated[list[str] | None, typer.Option(help="Only letters with these reasons.")] = None,
    sink: Annotated[list[str] | None, typer.Option(help="Only alerts that these sinks refused.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    config: ConfigOption = None,
) -> None:
    """Send dead letters back, once what was wrong is mended: documents to be read again, alerts to the sink that refused them."""
    with _told_plainly():
        from monitor.config import load_config
        from monitor.deadletters import replay_deadletters

        counts = asyncio.run(
            replay_deadletters(load_config(config), set(reason or ()), sinks=set(sink or ()), dry_run=dry_run)
        )
        for name, count in sorted(counts.items()):
            out.print(f"{count:8d}  {name}", highlight=False)


@app.command()
def backtest(
    counts: Annotated[
        list[Path] | None, typer.Option(help="CSV with the columns timestamp,value: a plain count series.")
    ] = None,
    opinions: Annotated[Path | None, typer.Option(help="JSON Lines of opinions, plain, .gz or .zst.")] = None,
    documents: Annotated[
        Path | None, typer.Option(help="JSON Lines of documents, read and classified as the daemon would.")
    ] = None,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Of counts: timestamp,score,alert, row by row (a folder for several). Else: alerts as JSON Lines.",
        ),
    ] = None,
    windows: Annotated[
        Path | None, typer.Option(help="JSON {file name or entity: [[from, to], ...]}: labelled anomalies to judge by.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with pictures and figures.")] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(help="Other [detection] options to put beside: false_alarms_per_day=0.1,minimal_ratio=2"),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Run the daemon's own detector over a recorded series or stream, causally, and judge it."""
    with _told_plainly():
        from monitor.backtest_command import run_backtest
        from monitor.config import load_config

        told = run_backtest(
            load_config(config), counts=counts or [], opinions=opinions, documents=documents, out=out_file,
            windows=windows, report=report, compare=compare or [],
        )  # fmt: skip
        for line in told:
            out.print(line, highlight=False, soft_wrap=True)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A training run's folder, or a checkpoint.")],
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="The bundle's folder; replaced when it is one.")],
    name: Annotated[str | None, typer.Option(help="Of the bundle, for people; by default its folder's.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with more texts, */*.tsv: for the vocabulary and the gate.")
    ] = None,
    variant: Annotated[list[str] | None, typer.Option(help="int8 (default), int4, fp16, fp32; repeat it.")] = None,
    vocabulary: Annotated[int, typer.Option(help="Pieces to keep at most, when the run has not cut it.")] = 82_000,
    keep_vocabulary: Annotated[bool, typer.Option("--keep-vocabulary", help="Keep all pieces.")] = False,
    max_f1_drop: Annotated[
        float | None, typer.Option(help="Points of macro-F1 that a file may lose; by default 0.3 for int8.")
    ] = None,
    benchmark: Annotated[bool, typer.Option(help="Measure the speed of each file.")] = True,
    threads: Annotated[int, typer.Option(help="Of onnxruntime; 0: all cores.", min=0)] = 0,
    report: Annotated[Path | None, typer.Option(help="Write everything measured as JSON.")] = None,
) -> None:
    """Make a bundle from a checkpoint: ONNX, quantised, checked against PyTorch per language, timed.

    A file that is not at parity with the checkpoint makes no bundle at all; exit code 2 then.
    """
    with _told_plainly():
        from export import command

        made = command.export_run(
            run,
            out_dir,
            console=err,
            name=name,
            data=data,
            variants=variant or ["int8"],
            vocabulary=None if keep_vocabulary else vocabulary,
            max_f1_drop=max_f1_drop,
            benchmark=benchmark,
            threads=threads,
        )
        if report is not None:
            report.write_text(command.as_json(made), encoding="utf-8")
        out.print(command.as_table(made))
        out.print(f"[green]{out_dir}[/] is written", highlight=False)


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    data: Annotated[Path, typer.Argument(help="TSV, CSV, JSON Lines or Parquet with texts, languages and labels.")],
    head: Annotated[str | None, typer.Option(help="What the labels are of; by default the first that fits.")] = None,
    variant: Annotated[str, typer.Option(help="The precision to run: int8, int4, fp16, fp32.")] = "int8",
    text: Annotated[str, typer.Option(help="Column of the text; by default found by usual names.")] = "",
    label: Annotated[str, typer.Option(help="Column of the label.")] = "",
    language: Annotated[str, typer.Option(help="Column of the language.")] = "",
    lang: Annotated[str, typer.Option(help="The language of all texts, instead of a column.")] = "",
    label_map: Annotated[
        list[str] | None, typer.Option("--map", help="`THERE=HERE` for a label; `THERE=` leaves its rows out.")
    ] = None,
    mapping: Annotated[str, typer.Option(help="A mapping file as recipes use them, instead of the above.")] = "",
    threads: Annotated[int, typer.Option(help="Of onnxruntime; 0: all cores.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page as well.")] = None,
) -> None:
    """Score a bundle on labelled texts, per language, by the very files that are served."""
    with _told_plainly():
        from export import evaluate as evaluation
        from export.corpus import Columns
        from monitor.inference.bundle import VARIANTS

        pairs = [pair.partition("=") for pair in label_map or ()]
        wrong = [there for there, equals, _ in pairs if not equals]
        if wrong:
            raise BabelwatchError(f"{wrong[0]!r} is no THERE=HERE", where="--map", hint="for example 5=positive")
        if variant not in VARIANTS:
            raise BabelwatchError(
                f"{variant!r} is no precision", where="--variant", hint=f"one of {', '.join(VARIANTS)}"
            )
        columns = Columns(text, label, language, lang, {there: here for there, _, here in pairs}, mapping)
        found = evaluation.evaluate_bundle(bundle, data, head=head, variant=variant, columns=columns, threads=threads)
        if html is not None:
            html.write_text(evaluation.as_html(found), encoding="utf-8")
        if as_json:
            sys.stdout.write(evaluation.as_json(found) + "\n")
        else:
            out.print(evaluation.as_table(found))


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe's TOML file.")],
    runs: Annotated[Path, typer.Option(help="Folder of all runs; this one is `RUNS/NAME`.")] = Path("runs"),
    changes: Annotated[list[str] | None, typer.Option("--set", help="`KEY=VALUE` to change the recipe by.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the data, the labels, the lengths and the cost; train nothing.")
    ] = False,
    until: Annotated[
        str, typer.Option(help="The last stage to run: `data` or `vocabulary` to look at what is prepared.")
    ] = "final",
    cache: Annotated[
        Path | None, typer.Option(help="Where fetched models are kept; ~/.cache/babelwatch.", show_default=False)
    ] = None,
) -> None:
    """Train a classifier by a recipe; a run that was broken off goes on where it was."""
    with _told_plainly():
        from training.recipe import load_recipe

        checked = load_recipe(recipe, changes or ())
        cache = cache or Path.home() / ".cache" / "babelwatch"
        if dry_run:
            from training.dryrun import dry_run as look

            for line in look(checked, recipe.parent, cache):
                out.print(_escaped(line), highlight=False, soft_wrap=True)
            return
        from tqdm import tqdm

        from training.run import run_recipe

        def say(line: str) -> None:
            tqdm.write(line, file=sys.stderr)  # above a bar, not into it

        made = run_recipe(checked, recipe.parent, runs, cache=cache, say=say, until=until)
        what = "is the trained checkpoint" if until == "final" else "is done, the stages after it are not"
        out.print(f"[green]{made}[/] {what}", highlight=False)


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Who will hold it; the name in the audit topic.")],
    role: Annotated[str, typer.Option(help="viewer, operator or metrics.")] = "viewer",
) -> None:
    """Make a bearer token: it is shown once, and the configuration gets its hash."""
    with _told_plainly():
        from pydantic import ValidationError

        from monitor.http.access import hash_token, new_token
        from monitor.http.settings import TokenSettings

        made = new_token()
        try:
            settings = TokenSettings.model_validate({"name": name, "role": role, "sha256": hash_token(made)})
        except ValidationError as error:
            raise BabelwatchError(error.errors()[0]["msg"], where=str(error.errors()[0]["loc"][0])) from None
        err.print("The token, shown this once; give it to its holder:")
        sys.stdout.write(made + "\n")
        err.print("\nThis goes into the configuration:\n")
        table = f'[[http.tokens]]\nname = "{settings.name}"\nrole = "{settings.role}"\nsha256 = "{settings.sha256}"'
        err.print(table, highlight=False, markup=False, soft_wrap=True)


@app.command()
def erase(
    document: Annotated[list[str] | None, typer.Option(help="Id of a document; may be given again.")] = None,
    author: Annotated[list[str] | None, typer.Option(help="An author, as the documents name them.")] = None,
    cut: Annotated[
        bool, typer.Option("--cut", help="Cut opinions, alerts and dead letters off behind it, with all that is older.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what is kept.")] = False,
    config: ConfigOption = None,
) -> None:
    """Erase what documents or authors said from everything that is kept; docs/security.md tells how."""
    with _told_plainly():
        from monitor.config import load_config
        from monitor.erase import Eraser

        eraser = Eraser(load_config(config), document or (), author or ())
        for line in asyncio.run(eraser.run(cut=cut, dry_run=dry_run)):
            out.print(f"{line.records:8d}  {line.topic}: {line.outcome}", highlight=False, soft_wrap=True)


@app.command()
def version() -> None:
    """Print the version."""
    out.print(package_version("babelwatch"), highlight=False)


def main() -> None:
    """The entry point."""
    app()


if __name__ == "__main__":
    main()
