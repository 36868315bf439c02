"""The commands. Words for a person at a terminal are made here."""
