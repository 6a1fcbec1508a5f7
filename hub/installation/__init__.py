"""The installation itself: which secrets its database was made with."""
