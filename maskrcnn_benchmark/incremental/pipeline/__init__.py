"""The phase scheduler: stages, their graph, state and actions."""
