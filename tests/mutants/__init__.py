"""Named mistakes in the rules of money, each with the test that must notice it."""
