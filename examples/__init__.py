"""Programs that use a running marketplace from outside, through its public interfaces only."""
