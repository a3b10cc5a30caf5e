"""Which models exist, and how they get to this computer: registry, licenses, download, store, checkpoint files."""
