"""What the router's tests are made of: a scripted tier, a client on raw sockets, the router as a process.

The three know nothing of each other and nothing of the router's code: they meet on sockets alone.
"""
