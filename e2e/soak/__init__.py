"""Soaks: the programs under load and failure for minutes; memory stays flat, and every answer is true."""
