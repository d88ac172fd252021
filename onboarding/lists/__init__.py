"""The watch list that comes with the project, and what it is made by."""
