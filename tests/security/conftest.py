from tests.support.platform_fixtures import app, bank, database, network, operator, sandbox, shop, temporal

__all__ = ["app", "bank", "database", "network", "operator", "sandbox", "shop", "temporal"]
