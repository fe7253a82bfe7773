"""Documents by revision: designs, certificates, work instructions."""
