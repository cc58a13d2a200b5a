"""Real parts for tests and demonstrations: a Kubernetes control plane, fake GPU nodes, and what runs on them."""
