"""A network measured before anything runs on it: pairs of nodes, and what each node can send and receive in all."""
