"""Documents: revisions, certificates, instructions, and their files by hash."""
