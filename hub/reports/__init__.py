"""Reports: statements to the fen and the trial balance, read from what the other rooms wrote."""
