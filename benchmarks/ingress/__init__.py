"""How fast the ingress is beside other servers that do the same (`make bench-ingress`)."""
