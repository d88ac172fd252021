"""What the tests share: real servers, one of each per run."""
