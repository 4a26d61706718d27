"""Pure types: what clients, service and worker say to each other. No I/O."""
