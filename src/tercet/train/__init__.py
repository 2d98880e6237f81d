"""Training: a student with quantizers on it, distilled from the model it was."""
