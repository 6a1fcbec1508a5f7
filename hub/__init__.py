"""The control plane: one folder per noun, each with tables, rules, service and api.

It leaves serving, training and artefact formats to the packages of those names.
"""
