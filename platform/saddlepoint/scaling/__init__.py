"""Execution: jobs on the workers of a Ray cluster, or of this machine. The only room that imports ray."""
