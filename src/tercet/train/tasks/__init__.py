"""Student, teacher and losses as one module, one file for each medium."""
