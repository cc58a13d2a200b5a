"""The router's readers under fuzz: of requests, of bodies, of streams and of replies.

Each target knows what must hold: another reader's reading, or the same bytes cut differently. An input is made from
(seed, number) alone, so every finding can be run again.
"""
