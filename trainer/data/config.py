"""The section `data`: where the shards and the tokenizer are."""

from trainer.section import Section


class DataConfig(Section):
    path: str = "data/embedded"  # folder of shards, relative to the working directory
    tokenizer: str = ""  # SentencePiece .model file; empty: the only *.model in data.path
