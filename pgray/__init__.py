"""Ray Tune driver: one sweep file in, one ablation table out. Start at `driver.py`."""
