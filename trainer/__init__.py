"""Trains, averages, quantizes, packs, unpacks and evaluates one job. Start at `trainer/pipeline.py`."""
