"""The guide: a toy-sized Llama model that Ullage trains on its own questions and answers.

The modules follow the way of the data: `corpus` reads the YAML, `phrasing` varies the questions,
`chat` turns conversations into text, `vocabulary` learns the tokenizer, `training` fits the model,
`export` writes the GGUF file, and `evaluation` asks the finished file through llama.cpp.
"""
