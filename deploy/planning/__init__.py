"""The planner's evaluator: simulations in processes, bisection on the rate; questions from files, plans as YAML."""
