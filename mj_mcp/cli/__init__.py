"""The commands. The words for a person at a terminal are written here."""
