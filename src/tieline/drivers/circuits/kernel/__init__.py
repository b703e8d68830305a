"""Circuits on routers that are Linux kernels: SRv6 (RFC 8754, RFC 8986) and HTB, by netlink through pyroute2."""
