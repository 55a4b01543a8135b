"""Schemas of what the templates make, strict: a field that no schema has is an error, as it is to an API server.

openshift     OpenShift's own, of the kinds that only it has
kubernetes    Kubernetes', of several of its versions
"""
