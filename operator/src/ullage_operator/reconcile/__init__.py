"""The pure core: what was observed goes in, a plan with its reasons comes out."""
