"""Who explains, and refines, what the rules decided: templates of our own, or Claude."""
