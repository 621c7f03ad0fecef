"""What runs inside a container: standard library and cloudpickle only."""
