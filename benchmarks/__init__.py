"""Programs that measure the figures of the README on a marketplace that really runs; see NOTES.md."""
