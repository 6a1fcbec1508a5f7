"""Deployments: what should run, what does run, and which version a public name stands for."""
