"""Who may import whom: the contracts of `.importlinter`, and the rules that name single modules."""

from __future__ import annotations

import configparser
import functools
import sys
from pathlib import Path

import grimp
import pytest
from importlinter import cli

ROOT = Path(__file__).parent.parent.parent
SERVICES = {
    "vault",
    "fraud",
    "network",
    "ledger",
    "notify",
    "documents",
    "settlement",
    "identity",
    "onboarding",
    "bank",
}


def _contracts() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    return parser


@functools.cache
def _graph() -> grimp.ImportGraph:
    packages = _contracts()["importlinter"]["root_packages"].split()
    return grimp.build_graph(*packages, include_external_packages=True, exclude_type_checking_imports=True)


def _importers(package: str) -> set[str]:
    """The modules that import `package` or a part of it directly, `package` itself left out."""
    imported = {package, *_graph().find_descendants(package)}
    importers = {name for module in imported for name in _graph().find_modules_that_directly_import(module)}
    return importers - imported


def _within(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def test_every_contract_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.lint_imports(config_filename=str(ROOT / ".importlinter"), no_cache=True) == 0, capsys.readouterr().out


def test_every_package_of_the_project_is_under_contract() -> None:
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert set(_contracts()["importlinter"]["root_packages"].split()) == packages


def test_only_programs_and_composition_roots_read_settings() -> None:
    allowed = {"api", "embedded", "workers.wiring", "workers.__main__", "temporal.client", "temporal.codec_server"}
    allowed |= {"temporal.crash_points"}
    others = {module for module in _importers("config") if not _within(module, allowed)}
    assert {module for module in others if not module.endswith(".__main__")} == set()


def test_the_api_reaches_of_the_services_only_the_vault_documents_identity_and_the_users_own_messages() -> None:
    reached = {
        imported
        for module in _graph().find_descendants("api")
        for imported in _graph().find_modules_directly_imported_by(module)
    }
    services = {module for module in reached if _within(module, SERVICES)}
    assert {
        module
        for module in services
        if not _within(module, {"vault", "documents", "identity", "notify.inbox", "notify.push_tokens"})
    } == set()


def test_only_the_vault_worker_and_the_api_load_the_hsm() -> None:
    assert {module for module in _importers("vault.hsm") if not _within(module, {"vault"})} <= {
        "workers.wiring",
        "api.app",
        "api.__main__",
        "embedded.provision",
    }


def test_only_the_network_worker_can_open_credentials() -> None:
    graph = _graph()
    openers = {
        module
        for module in graph.find_modules_that_directly_import("sealing")
        if "Unsealer" in (ROOT / f"{module.replace('.', '/')}.py").read_text()
    }
    # What the onboarding worker opens are persons' keys, the bank's worker account numbers; each with a key of its own;
    # the vault opens what a bank corrects of an account number, which it keeps anyway.
    assert openers <= {
        "network.credentials",
        "workers.wiring",
        "network.gateway",
        "onboarding.cases",
        "bank.gateway",
        "vault.bank_accounts",
    }


@pytest.mark.parametrize("module", ["temporalio.worker", "temporalio.client"])
def test_workflows_have_neither_a_client_nor_a_worker_at_hand(module: str) -> None:
    importers = {
        importer
        for importer in _graph().find_descendants("workflows")
        if module.partition(".")[0] in _graph().find_modules_directly_imported_by(importer)
    }
    sources = [(ROOT / f"{importer.replace('.', '/')}.py").read_text() for importer in importers]
    assert sources
    assert not [source for source in sources if module in source]


def test_the_domain_imports_nothing_but_the_standard_library() -> None:
    graph = _graph()
    imported = {
        name for module in graph.find_descendants("domain") for name in graph.find_modules_directly_imported_by(module)
    }
    foreign = {name for name in imported if not _within(name, {"domain"})}
    assert {name for name in foreign if name.partition(".")[0] not in sys.stdlib_module_names} == set()
