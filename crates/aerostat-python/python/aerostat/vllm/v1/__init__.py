"""The second generation of vLLM's modules."""
