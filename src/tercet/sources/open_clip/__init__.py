"""open_clip checkpoints as sources: their weights under the names of transformers."""
