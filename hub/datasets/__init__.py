"""Data sets: a firm's training rows, checked line by line, seen by nobody else."""
