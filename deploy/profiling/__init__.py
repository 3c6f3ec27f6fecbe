"""Measuring how long steps take: the real engine on the device at hand, and what others have measured."""
