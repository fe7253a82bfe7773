"""MQTT 3.1.1 and 5: a session with a broker, and JSON messages read by a declared mapping."""
