"""The engine for ONNX files: encoders that embed and rank texts, on onnxruntime."""
