"""Sparkplug B over MQTT: payloads, topics, the host application and the edge node.

References
----------
Eclipse Foundation, Sparkplug 3.0.0 Specification (2022). The tests name its assertions
(``tck-id-…``) one by one.
"""
