"""A request, and what becomes of it: a complete specification of a lease, and its charge.

Promises: a specification is within the profile's limits, and every refusal names the field and what to write instead. Not
promised: that there is capacity for it (see ``admission``).
"""
