"""What should run where, worked out before it does. All pure."""
