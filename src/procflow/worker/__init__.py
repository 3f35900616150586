"""The child's side of a pool. Import-light: what is imported here, every worker of every pool pays for."""
