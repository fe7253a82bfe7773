"""BACnet/IP: devices polled by ReadPropertyMultiple, and changes they tell by themselves (COV)."""
