"""Distillation on the real node: a tiny teacher, a tiny student made on the spot, and everything else as it is."""
