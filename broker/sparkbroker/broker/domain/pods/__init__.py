"""Settings of Kubernetes pods, as text and JSON: their shape, what they refer to, and what they ask for.

Promises: a setting that passes has the shape that Kubernetes takes, and a holder's stays within the profile's bounds. Not
promised: that a cluster takes the pod (see ``adapters.kubernetes_provisioner``).
"""
