"""Hydra composes in half the time where one process, or the forks of one, compose many times."""

import pickle
from itertools import takewhile
from types import SimpleNamespace


def hasten():
    """Lets Hydra read what prunebench and Hydra ship once in a process, and merge its own once.

    What users add may change between two compositions, and is read each time.
    """
    from hydra._internal import defaults_list
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_repository import ConfigRepository

    from prunebench.options import conf_dir

    defaults_list._create_interpolation_map = where_asked(defaults_list._create_interpolation_map)
    ConfigRepository.load_config = read_once(ConfigRepository.load_config, str(conf_dir()))
    merge_once(ConfigLoaderImpl, str(conf_dir()))


def sources_of(repository, shipped):
    """Where `repository` reads; None where a user's folder is among it."""
    sources = tuple((source.scheme(), source.path) for source in repository.get_sources())
    ours = all(scheme != "file" or folder == shipped for scheme, folder in sources)
    return sources if ours else None


def read_once(load, shipped):
    """What reads a configuration, and remembers it as bytes: each composition changes its own."""
    read = {}

    def load_config(self, config_path):
        if (sources := sources_of(self, shipped)) is None:
            return load(self, config_path)
        if (sources, config_path) not in read:
            if (found := load(self, config_path)) is None:
                return None  # a test may have hidden the plugin that brings it
            read[sources, config_path] = pickle.dumps(found)
        return pickle.loads(read[sources, config_path])

    return load_config


def where_asked(create):
    """What makes the map that interpolations in a defaults list look into, where there are any."""

    def create_map(overrides, defaults, self_added):
        asked = any(default.is_interpolation() for default in defaults if not default.is_self())
        return create(overrides, defaults, self_added) if asked else None

    return create_map


def merge_once(loader, shipped):
    """Lets `loader` begin with what Hydra's own defaults, which come first, merge to."""
    merge, read = loader._compose_config_from_defaults_list, loader._load_single_config
    merged = {}

    def merge_all(self, defaults, repo):
        own = [*takewhile(lambda default: default.config_path.startswith("hydra/"), defaults)]
        if (sources := sources_of(repo, shipped)) is None:
            return merge(self, defaults, repo)
        key = (sources, *((default.config_path, default.package) for default in own))
        if key not in merged:
            merged[key] = pickle.dumps(merge(self, own, repo))
        begun = SimpleNamespace(config_path="hydra", config=pickle.loads(merged[key]))
        return merge(self, [begun, *defaults[len(own) :]], repo)

    def read_one(self, default, repo):
        return default if isinstance(default, SimpleNamespace) else read(self, default, repo)

    loader._compose_config_from_defaults_list, loader._load_single_config = merge_all, read_one
