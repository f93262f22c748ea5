"""A Kubernetes cluster of three nodes on one Linux machine: ``python3 -m tools.cluster``, from the standard library alone."""
