"""Benchmarks that print ratios against a peer in the same run. Nothing here is a test and nothing fails on a slow
machine.
"""
