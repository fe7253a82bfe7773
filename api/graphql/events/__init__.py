"""Events: the log itself, in pages and as a subscription that never loses one."""
