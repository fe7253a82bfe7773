"""The door of the house: HTTP, GraphQL, ingest, wiring, settings and the `heddle` command.

The only room that imports all others. It decides nothing about machines and holds no SQL.
"""
