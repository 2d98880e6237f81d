"""Language models at run time: tokens in, tokens out."""
