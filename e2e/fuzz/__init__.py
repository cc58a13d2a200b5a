"""Fuzzing: inputs made by a seeded die and thrown at code in this process, judged by more than not to crash."""
