"""`pgray data build`, `pgray data fetch` and `pgray data check`: get training data and check it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pgray.cli.options import JsonOption, print_json
from pgray.data import hub
from pgray.data.check import check_folder
from pgray.data.corpus import build_corpus
from trainer.records.text import count_of


def build(
    out: Annotated[Path, typer.Option(help="Folder to build into.")] = Path("data/embedded"),
    force: Annotated[bool, typer.Option("--force", help="Build even if the folder is up to date.")] = False,
    as_json: JsonOption = False,
) -> None:
    manifest = build_corpus(out, force=force, report=(lambda _: None) if as_json else print)
    if as_json:
        print_json({"path": str(out), **manifest.model_dump()})


def fetch(
    shards: Annotated[int, typer.Option(help="Number of training shards, of 100 million tokens (200 MB) each.")],
    variant: Annotated[str, typer.Option(help="Tokenizer of the published data: sp1024, sp4096, ...")] = "sp1024",
    out: Annotated[Path | None, typer.Option(help="Folder to fill. Default: data/fineweb10B_VARIANT.")] = None,
    as_json: JsonOption = False,
) -> None:
    report = hub.fetch(variant, shards=shards, out=out, report=(lambda _: None) if as_json else print)
    if as_json:
        print_json(asdict(report))


def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data folder.", show_default=False)],
    tokenizer: Annotated[str, typer.Option(help="SentencePiece model. Default: the only *.model in DIR.")] = "",
    vocab_size: Annotated[int | None, typer.Option(help="The model.vocab_size that the data must fit.")] = None,
    seq_len: Annotated[int | None, typer.Option(help="Longest sequence that a sweep will use.")] = None,
    as_json: JsonOption = False,
) -> None:
    report = check_folder(folder, tokenizer, vocab_size, seq_len)
    if as_json:
        print_json({**asdict(report), "is_ok": report.is_ok})
    else:
        for problem in report.problems:
            print(f"problem: {problem}")
        for warning in report.warnings:
            print(f"warning: {warning}")
        print(
            f"{folder}: {count_of(report.train_shards, 'training shard')}, {report.train_tokens:,} tokens; "
            f"{count_of(report.val_shards, 'validation shard')}, {report.val_tokens:,} tokens"
        )
        if report.scored_tokens is not None and report.scored_bytes is not None:
            print(f"validation scores {report.scored_tokens:,} tokens of {report.scored_bytes:,} bytes")
        print("ok" if report.is_ok else count_of(len(report.problems), "problem"))
    raise typer.Exit(0 if report.is_ok else 2)
