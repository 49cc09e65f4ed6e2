"""Learning to retrieve: losses, hard negatives, and what turns a net into a better one."""

__all__ = []
