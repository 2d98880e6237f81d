"""Models of pictures and texts: both towers quantized, distilled from themselves, packed and compared."""
