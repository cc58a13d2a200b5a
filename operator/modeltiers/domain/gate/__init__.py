"""The gate: whether a student is good enough to take its tier's place, from scores alone. Pure; docs/gate.md tells how.

`items` reads scores, `tally` counts two models on the same items, `paired` compares them, `power` says how many items
that takes, `rule` is what was asked, `looks` shares alpha out among the uses of one sealed set, `decide` brings it
together. `mimicry` and `payback` stand beside.
"""
