"""The pool controller: engines and their adapters as the hub desires them; requests and money are left to others."""
