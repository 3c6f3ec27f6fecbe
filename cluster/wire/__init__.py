"""Between `cluster.messages` and `proto/instance.proto`: one pair of functions for each kind of message."""
