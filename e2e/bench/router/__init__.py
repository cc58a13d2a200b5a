"""The router beside nginx and haproxy: what a request, an event and a stream cost, against the targets."""
