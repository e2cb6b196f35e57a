"""Ranking: how well documents answer a query, in the shapes of Cohere, Jina, TEI and vLLM."""
