"""OPC UA as a connection of the agent: sessions, subscriptions, values, browsing."""
