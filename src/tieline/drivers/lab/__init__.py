"""The laboratory: a network of namespaces on one machine, built from a topology file, in which circuits are real."""
