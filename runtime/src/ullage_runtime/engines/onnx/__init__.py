"""The engine for ONNX files: encoders that embed texts, on onnxruntime."""
