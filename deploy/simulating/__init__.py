"""From what a user writes down to a simulated cluster, and from what became of it to figures and pictures."""
