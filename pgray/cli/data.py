"""`pgray data build | fetch | check`: get data, and know that it is right."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pgray.cli.inspect import JsonOption


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="Get data, and check it.", no_args_is_help=True)
    group.command()(build)
    group.command()(fetch)
    group.command()(check)
    app.add_typer(group, name="data")


def build(
    out: Annotated[Path, typer.Option(help="Folder to build into.")] = Path("data/embedded"),
    force: Annotated[bool, typer.Option("--force", help="Build even if it is up to date.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Build the embedded corpus from the documentation of the installed packages. Needs no network."""
    from dataclasses import asdict

    from pgray.data.corpus import build_corpus

    manifest = build_corpus(out, force=force, report=_silent if as_json else print)
    if as_json:
        print(json.dumps({"path": str(out), **asdict(manifest)}, indent=1))


def _silent(_: str) -> None:
    pass


def fetch(
    shards: Annotated[int, typer.Option(help="Training shards to have, of 100 million tokens (200 MB) each.")],
    variant: Annotated[str, typer.Option(help="Tokenizer of the export: sp1024, sp4096, ...")] = "sp1024",
    out: Annotated[Path | None, typer.Option(help="Folder to fill; default: data/fineweb10B_VARIANT.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring published FineWeb shards from the Hugging Face hub: tokenizer, validation split, first training shards."""
    from dataclasses import asdict

    from pgray.data import hub

    report = hub.fetch(variant, shards=shards, out=out, report=_silent if as_json else print)
    if as_json:
        print(json.dumps(asdict(report), indent=1, default=str))


def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data folder.", show_default=False)],
    tokenizer: Annotated[str, typer.Option(help="SentencePiece model; default: the one *.model in DIR.")] = "",
    vocab_size: Annotated[int | None, typer.Option(help="model.vocab_size that the data must fit.")] = None,
    seq_len: Annotated[int | None, typer.Option(help="Longest sequence that will be asked for.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Read every shard of a data folder and list every problem. Exit code 2 if there is one."""
    from dataclasses import asdict

    from pgray.data.check import check_folder

    report = check_folder(folder, tokenizer, vocab_size, seq_len)
    if as_json:
        print(json.dumps({**asdict(report), "is_ok": report.is_ok}, indent=1, default=str))
    else:
        for problem in report.problems:
            print(f"problem: {problem}")
        print(f"{folder}: {report.train_shards} training shards, {report.train_tokens:,} tokens; ", end="")
        print(f"{report.val_shards} validation shards, {report.val_tokens:,} tokens")
        if report.scored_tokens is not None and report.scored_bytes is not None:
            print(f"validation scores {report.scored_tokens:,} tokens of {report.scored_bytes:,} bytes")
        print("ok" if report.is_ok else f"{len(report.problems)} problems")
    raise typer.Exit(0 if report.is_ok else 2)
