"""Files that merchants hand in: what they are is told from their content, and they are kept, encrypted, on S3."""
