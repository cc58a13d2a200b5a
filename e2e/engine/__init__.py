"""Real vLLM on the CPU with tiny models made on the spot, for the router's end-to-end tests.

`environment` installs it once a machine, `tiny` writes models, `server` runs one process a tier. Knows no router.
"""
