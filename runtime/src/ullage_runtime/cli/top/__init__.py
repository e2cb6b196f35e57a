"""`ullage top`: what happens in a pod, live in the terminal."""
