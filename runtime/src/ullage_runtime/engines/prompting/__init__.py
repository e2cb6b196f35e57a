"""Prompting: what every engine that generates makes of a request, whatever computes the answer."""
