from tests.support.platform_fixtures import app, database, network, sandbox, shop, temporal

__all__ = ["app", "database", "network", "sandbox", "shop", "temporal"]
