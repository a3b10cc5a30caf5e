"""The interactive branch: from clicks to a changed mask."""
