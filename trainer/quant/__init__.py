"""Quantization: `base` the scheme, `fake` and `noise` what training does with it, `select` which tensor gets which bits."""
