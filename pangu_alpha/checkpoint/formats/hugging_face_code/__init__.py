"""Code that goes into every exported Hugging Face folder: plain PyTorch, which runs without this package."""
