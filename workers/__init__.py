"""The worker processes: which queue runs what (`registry`), and what that is made of (`wiring`)."""
