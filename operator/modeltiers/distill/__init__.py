"""Program 4: what runs inside the pods of a DistillJob, `python -m modeltiers.distill`.

It knows nothing of Kubernetes: a plan, a store, and the outcomes of the stages before are all it is told.
"""
