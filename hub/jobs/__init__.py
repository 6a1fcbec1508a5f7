"""Jobs: work to be done later by whichever worker locks the row first."""
