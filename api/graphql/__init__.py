"""The GraphQL API: one folder a domain, each with its types, queries, mutations, subscriptions.

Resolvers translate: they hold no SQL and decide nothing. What is shared lies here: `scalars`,
`relay` (ids, cursors, connections), `errors`, `context` (one an operation), `documents` (parsing,
limits, validation) and `endpoint` (HTTP and WebSocket).
"""
