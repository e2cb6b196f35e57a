"""Ullage's contract: custom resource kinds, wire documents and the rules that both sides share.

Everything in this package is pure: it reads no clock, no file and no network. The operator and the
runtime both import it and never each other, so what they must agree on is here and nowhere else.
"""
