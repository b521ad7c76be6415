"""Hydra composes in half the time where one process, or the forks of one, compose many times."""

import pickle


def hasten():
    """Lets Hydra read what prunebench and Hydra ship once in a process.

    What users add may change between two compositions, and is read each time.
    """
    from hydra._internal import defaults_list
    from hydra._internal.config_repository import ConfigRepository

    from prunebench.options import conf_dir

    defaults_list._create_interpolation_map = where_asked(defaults_list._create_interpolation_map)
    ConfigRepository.load_config = read_once(ConfigRepository.load_config, str(conf_dir()))


def read_once(load, shipped):
    """What reads a configuration, and remembers it as bytes: each composition changes its own."""
    read = {}

    def load_config(self, config_path):
        sources = tuple((source.scheme(), source.path) for source in self.sources)
        if any(scheme == "file" and folder != shipped for scheme, folder in sources):
            return load(self, config_path)
        if (sources, config_path) not in read:
            read[sources, config_path] = pickle.dumps(load(self, config_path))
        return pickle.loads(read[sources, config_path])

    return load_config


def where_asked(create):
    """What makes the map that interpolations in a defaults list look into, where there are any."""

    def create_map(overrides, defaults, self_added):
        asked = any(default.is_interpolation() for default in defaults if not default.is_self())
        return create(overrides, defaults, self_added) if asked else None

    return create_map
