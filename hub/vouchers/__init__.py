"""Vouchers: public programmes as data, applications with two reviewers, grants, and what they cover of a bill."""
