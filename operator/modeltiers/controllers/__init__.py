"""Program 1: the operator. `python -m modeltiers.controllers`."""
