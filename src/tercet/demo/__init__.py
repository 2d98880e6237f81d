"""`tercet demo`: what Tercet does, on models and data that anyone can have."""
