"""Decisions of a distillation: which stage comes next and what it rests on, how rows are parted and judged. Pure."""
