"""Any checkpoint -> named tensors and constructor arguments, without executing anything that it carries."""
