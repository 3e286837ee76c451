"""What the server knows of single systems: their answers in their own words."""
