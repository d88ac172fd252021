"""The fraud engine: streaming features, rules, a model, and one decision made of them."""
