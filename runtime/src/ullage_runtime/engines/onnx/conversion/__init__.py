"""Conversion: other files become ONNX files, or smaller ones, which are held against the first."""
