"""What people and machines are told of a running agent: status, metrics, certificates, traces."""
