"""`make demo`: a guided tour over real parts, each command printed so that a reader can run it again."""
