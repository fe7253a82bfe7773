"""Who may do what: identities, the rights of their roles, and what of the plant they see."""
