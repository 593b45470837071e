"""What an endpoint serves where nobody says it."""

from pathlib import Path

from schemas.catalog import shipped_catalog
from serve.admission.names import served_catalog
from serve.config import Pools, ServeConfig, read_serve_config
from serve.dispatch.pools import limits_of


def least(config: ServeConfig) -> dict[str, int]:
    """The replicas that each served variant has at least, by variant."""
    served = served_catalog(config, shipped_catalog())
    return {name: limits_of(config, served, name)[0] for name in served.variants}


def test_what_the_page_and_what_auto_begins_with_are_loaded_from_the_start(tmp_path: Path) -> None:
    expected = {"directed": 1, "shapes": 1, "shapes-turbo": 0}
    assert least(ServeConfig()) == expected
    (tmp_path / "serve.toml").write_text("[pools]\nidle_to_zero_s = 60\n")
    assert least(read_serve_config(tmp_path / "serve.toml")) == expected


def test_of_variants_that_are_named_the_first_stays_loaded() -> None:
    assert least(ServeConfig(pools=Pools(variants=("embedded", "directed")))) == {"shapes": 1, "directed": 0}
    assert least(read_serve_config(None, pools={"variants": ["embedded-turbo"]})) == {"shapes-turbo": 1}


def test_a_table_of_least_replicas_is_taken_as_it_is() -> None:
    told = Pools(min_replicas={"embedded-turbo": 1})
    assert least(ServeConfig(pools=told)) == {"directed": 1, "shapes": 0, "shapes-turbo": 1}
