"""Why something does not serve: a snapshot of a namespace in, findings out. Pure, and total over odd objects."""
