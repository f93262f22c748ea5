"""What stops the cluster, in a sentence for whoever started it."""


class ClusterError(Exception):
    """Something outside of this program isn't as it has to be. The message says what to do about it."""
