"""The training + export pipeline: train -> average -> quantize -> pack -> unpack -> evaluate. Start at `pipeline.py`."""
