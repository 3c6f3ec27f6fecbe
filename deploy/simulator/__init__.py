"""The production brain on a virtual clock: see docs/simulator.md."""
