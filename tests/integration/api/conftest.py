from tests.support.platform_fixtures import database, network, sandbox, shop, temporal

__all__ = ["database", "network", "sandbox", "shop", "temporal"]
