"""What a person sees: one picture of the agent, the page that shows it, and the health calls."""
