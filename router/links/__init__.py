"""What the router knows of the links between its instances' nodes, and what it predicts from that."""
