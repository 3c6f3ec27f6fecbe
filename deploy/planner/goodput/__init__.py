"""Which deployment serves most within its SLOs: parallelism, roles and counts. All pure."""
