from tests.support.platform_fixtures import database, network, operator, sandbox, shop, temporal

__all__ = ["database", "network", "operator", "sandbox", "shop", "temporal"]
