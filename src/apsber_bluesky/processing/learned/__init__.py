"""Networks that denoise and segment volumes, and how they are trained."""
