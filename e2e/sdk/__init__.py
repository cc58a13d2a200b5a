"""OpenAI's own clients in front of the router: what its users' programs see."""
