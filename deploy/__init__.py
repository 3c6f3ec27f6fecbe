"""From a YAML to a running cluster: command line, controller, workloads and benchmarks."""
