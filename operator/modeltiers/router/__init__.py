"""The OpenAI-compatible data plane: requests meet tiers by a table. Knows nothing of Kubernetes."""
