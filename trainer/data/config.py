"""The section `data`: where the shards and the tokenizer are."""

from trainer.section import Section


class DataConfig(Section):
    path: str = "data/embedded"  # folder of shards, in the sweep file's folder or in one above it
    tokenizer: str = ""  # SentencePiece .model file; empty: the only *.model in data.path
