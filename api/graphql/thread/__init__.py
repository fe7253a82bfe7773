"""The thread over GraphQL: traces and recalls."""
