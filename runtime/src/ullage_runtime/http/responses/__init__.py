"""OpenAI's Responses API: answers that are kept, so that the next question can build on them."""
