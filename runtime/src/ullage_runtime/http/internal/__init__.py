"""What operator and pod say to each other: the desired document in, the report out."""
