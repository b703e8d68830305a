"""A simulated federation behind the same ports: virtual clock, faulty network, sites, owners, users, all from one seed.

The decisions are the product's own: the writer with its desk and draft, the use-cases, the placing pass, the site's
machine, the catalogue. What is simulated is the world around them: time, wires, disks, processes, people.
"""
