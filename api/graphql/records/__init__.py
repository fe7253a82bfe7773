"""Records: many commands at once, corrections of what was recorded, and signatures."""
