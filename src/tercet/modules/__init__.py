"""Programs in torch: their operations, and modules that can be trained."""
