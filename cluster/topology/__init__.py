"""What the network gives, as measured: links, nodes, what they share, and what that means for a transfer. All pure."""
