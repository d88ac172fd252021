"""PostgreSQL: models, engine and migrations. Nothing here knows what a payment means; it knows how one is kept."""
