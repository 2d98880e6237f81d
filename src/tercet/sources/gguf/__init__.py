"""GGUF files as sources: read, checked, and converted into the layout of a transformers folder."""
