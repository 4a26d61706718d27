"""Networks that bare weights can name, in the layout of their published checkpoints."""
