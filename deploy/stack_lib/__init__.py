"""The parts of deploy/stack; see there for the reading order."""
