"""What models write into the text of their answers: reasoning and calls of tools, told apart."""
