"""Image-text models at run time: pictures and captions in, embeddings out."""
