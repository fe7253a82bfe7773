"""Work orders as they stood, and the policy that asks for them."""
