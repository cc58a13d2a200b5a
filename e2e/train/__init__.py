"""The trainer's environment, and tiny models with a task that they learn, for tests and the demo."""
