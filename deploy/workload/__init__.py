"""What a benchmark sends and when: traces, arrival processes, and prompts made to measure."""
