"""The router in front of two real vLLM tiers, asked as a client would ask."""
